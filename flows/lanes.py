"""The algebra of numeric aggregations over lanes.

A *lane* is one 8-byte cell of state, read as float64 or as int64. An aggregation is an *op*: an op code, the input
column it reads, the mask that says which events count, and the offset of its first lane. `init_ops`, `update_ops` and
`merge_ops` interpret a table of ops over the lanes of one tile; they are the whole arithmetic of the fast path, and
`merge_ops` is associative and commutative up to float rounding.

| op      | lanes                          | update with x                                                    |
|---------|--------------------------------|------------------------------------------------------------------|
| COUNT   | n: int                         | n + 1                                                            |
| SUM_F   | hi, lo: float                  | double-double addition (Knuth's TwoSum), so a sum loses nothing  |
| SUM_I   | sum: int, approx: float        | wraps modulo 2**64; `approx` tells whether the true sum fits     |
| MIN_*   | x                              | int or float minimum                                             |
| MAX_*   | x                              | int or float maximum                                             |
| MOMENTS | n: int, hi, lo, m2: float      | Welford's update with a double-double mean                       |
| FIRST   | t, position: int, x            | keeps the least (t, position)                                    |
| LAST    | t, position: int, x            | keeps the greatest (t, position)                                 |
| DECAY   | t: int, s, w: float            | weighted sum and weight as of t, half-life in microseconds       |

Sources: D. E. Knuth, The Art of Computer Programming 2, 4.2.2 (TwoSum); B. P. Welford, Technometrics 4(3) 1962;
T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
1979, equation 2.1 (merge of two moments).
"""

import math

from headrace.flows.compiled import step

COUNT, SUM_F, SUM_I, MIN_F, MAX_F, MIN_I, MAX_I, MOMENTS, FIRST, LAST, DECAY = range(11)
WIDTH = {COUNT: 1, SUM_F: 2, SUM_I: 2, MIN_F: 1, MAX_F: 1, MIN_I: 1, MAX_I: 1, MOMENTS: 4, FIRST: 3, LAST: 3, DECAY: 3}

# Columns of an op table (int64) and the first and last instants.
OP_CODE, OP_INPUT, OP_MASK, OP_LANE = range(4)
FOREVER = 2**63 - 1
NEVER = -(2**63)


@step
def two_sum(a: float, b: float) -> tuple[float, float]:
    """`a + b` rounded, and what the rounding lost. A sum that overflowed has lost nothing further."""
    s = a + b
    if not math.isfinite(s):
        return s, 0.0
    v = s - a
    return s, (a - (s - v)) + (b - v)


@step
def divide(hi: float, lo: float, n: float) -> float:
    """`(hi + lo) / n`, rounded once: the quotient, corrected by what its product with n leaves (T. J. Dekker, 1971)."""
    q = hi / n
    if not abs(q) < 1e290:
        return q
    split = 134217729.0 * q
    q_hi = split - (split - q)
    split = 134217729.0 * n
    n_hi = split - (split - n)
    q_lo, n_lo = q - q_hi, n - n_hi
    product = q * n
    error = ((q_hi * n_hi - product) + q_hi * n_lo + q_lo * n_hi) + q_lo * n_lo
    return q + (((hi - product) - error) + lo) / n


@step
def init_ops(ops, first, last, f, i, row, at):
    """Write the neutral element of ops `first..last` into the lanes at (`row`, `at`)."""
    for o in range(first, last):
        c = ops[o, OP_CODE]
        p = at + ops[o, OP_LANE]
        if c == COUNT:
            i[row, p] = 0
        elif c == SUM_F:
            f[row, p] = 0.0
            f[row, p + 1] = 0.0
        elif c == SUM_I:
            i[row, p] = 0
            f[row, p + 1] = 0.0
        elif c == MIN_F:
            f[row, p] = math.inf
        elif c == MAX_F:
            f[row, p] = -math.inf
        elif c == MIN_I:
            i[row, p] = FOREVER
        elif c == MAX_I:
            i[row, p] = NEVER
        elif c == MOMENTS:
            i[row, p] = 0
            f[row, p + 1] = 0.0
            f[row, p + 2] = 0.0
            f[row, p + 3] = 0.0
        elif c == FIRST:
            i[row, p] = FOREVER
            i[row, p + 1] = FOREVER
            i[row, p + 2] = 0
        elif c == LAST:
            i[row, p] = NEVER
            i[row, p + 1] = NEVER
            i[row, p + 2] = 0
        else:
            i[row, p] = NEVER
            f[row, p + 1] = 0.0
            f[row, p + 2] = 0.0


@step
def update_ops(ops, half_life, first, last, f, i, row, at, vf, vi, mask, e, te, pos):
    """Fold event `e` (inputs `vf`/`vi`, masks `mask`, event time `te`, source position `pos`) into the lanes."""
    for o in range(first, last):
        if not mask[e, ops[o, OP_MASK]]:
            continue
        c = ops[o, OP_CODE]
        p = at + ops[o, OP_LANE]
        if c == COUNT:
            i[row, p] += 1
            continue
        v = ops[o, OP_INPUT]
        if c == SUM_F:
            s, r = two_sum(f[row, p], vf[e, v])
            f[row, p] = s
            f[row, p + 1] += r
        elif c == SUM_I:
            i[row, p] += vi[e, v]
            f[row, p + 1] += float(vi[e, v])
        elif c == MIN_F:
            if vf[e, v] < f[row, p]:
                f[row, p] = vf[e, v]
        elif c == MAX_F:
            if vf[e, v] > f[row, p]:
                f[row, p] = vf[e, v]
        elif c == MIN_I:
            if vi[e, v] < i[row, p]:
                i[row, p] = vi[e, v]
        elif c == MAX_I:
            if vi[e, v] > i[row, p]:
                i[row, p] = vi[e, v]
        elif c == MOMENTS:
            n = i[row, p] + 1
            i[row, p] = n
            d, lost = two_sum(vf[e, v], -f[row, p + 1])
            d += lost - f[row, p + 2]
            s, r = two_sum(f[row, p + 1], d / n)
            f[row, p + 1] = s
            f[row, p + 2] += r
            # An infinite input leaves no variance, whatever the order in which it came.
            f[row, p + 3] += d * d * ((n - 1) / n) if math.isfinite(vf[e, v]) else math.nan
        elif c == FIRST:
            if te < i[row, p] or (te == i[row, p] and pos < i[row, p + 1]):
                i[row, p] = te
                i[row, p + 1] = pos
                i[row, p + 2] = vi[e, v]
        elif c == LAST:
            if te > i[row, p] or (te == i[row, p] and pos > i[row, p + 1]):
                i[row, p] = te
                i[row, p + 1] = pos
                i[row, p + 2] = vi[e, v]
        else:
            t = i[row, p]
            if te >= t:
                fade = 0.0 if t == NEVER else 2.0 ** (-float(te - t) / half_life[o])
                f[row, p + 1] = f[row, p + 1] * fade + vf[e, v]
                f[row, p + 2] = f[row, p + 2] * fade + 1.0
                i[row, p] = te
            else:
                fade = 2.0 ** (-float(t - te) / half_life[o])
                f[row, p + 1] += vf[e, v] * fade
                f[row, p + 2] += fade


@step
def merge_ops(ops, half_life, first, last, f, i, row, at, gf, gi, grow, gat):
    """Fold the lanes at (`grow`, `gat`) of `gf`/`gi` into the lanes at (`row`, `at`) of `f`/`i`."""
    for o in range(first, last):
        c = ops[o, OP_CODE]
        p = at + ops[o, OP_LANE]
        q = gat + ops[o, OP_LANE]
        if c == COUNT:
            i[row, p] += gi[grow, q]
        elif c == SUM_F:
            s, r = two_sum(f[row, p], gf[grow, q])
            f[row, p] = s
            f[row, p + 1] += r + gf[grow, q + 1]
        elif c == SUM_I:
            i[row, p] += gi[grow, q]
            f[row, p + 1] += gf[grow, q + 1]
        elif c == MIN_F:
            if gf[grow, q] < f[row, p]:
                f[row, p] = gf[grow, q]
        elif c == MAX_F:
            if gf[grow, q] > f[row, p]:
                f[row, p] = gf[grow, q]
        elif c == MIN_I:
            if gi[grow, q] < i[row, p]:
                i[row, p] = gi[grow, q]
        elif c == MAX_I:
            if gi[grow, q] > i[row, p]:
                i[row, p] = gi[grow, q]
        elif c == MOMENTS:
            m = gi[grow, q]
            if m == 0:
                continue
            n = i[row, p]
            if n == 0:
                i[row, p] = m
                for k in range(1, 4):
                    f[row, p + k] = gf[grow, q + k]
                continue
            d, lost = two_sum(gf[grow, q + 1], -f[row, p + 1])
            d += lost + (gf[grow, q + 2] - f[row, p + 2])
            total = n + m
            s, r = two_sum(f[row, p + 1], d * (m / total))
            i[row, p] = total
            f[row, p + 1] = s
            f[row, p + 2] += r
            f[row, p + 3] += gf[grow, q + 3] + d * d * (float(n) * (m / total))
        elif c == FIRST:
            if gi[grow, q] < i[row, p] or (gi[grow, q] == i[row, p] and gi[grow, q + 1] < i[row, p + 1]):
                for k in range(3):
                    i[row, p + k] = gi[grow, q + k]
        elif c == LAST:
            if gi[grow, q] > i[row, p] or (gi[grow, q] == i[row, p] and gi[grow, q + 1] > i[row, p + 1]):
                for k in range(3):
                    i[row, p + k] = gi[grow, q + k]
        else:
            t = i[row, p]
            u = gi[grow, q]
            if u == NEVER:
                continue
            if u >= t:
                fade = 0.0 if t == NEVER else 2.0 ** (-float(u - t) / half_life[o])
                f[row, p + 1] = f[row, p + 1] * fade + gf[grow, q + 1]
                f[row, p + 2] = f[row, p + 2] * fade + gf[grow, q + 2]
                i[row, p] = u
            else:
                fade = 2.0 ** (-float(t - u) / half_life[o])
                f[row, p + 1] += gf[grow, q + 1] * fade
                f[row, p + 2] += gf[grow, q + 2] * fade
