"""Sums in double-double arithmetic: a running float64 sum together with the rounding errors it has made.

A pair `(hi, lo)` stands for hi + lo with about 106 bits, so that adding n values errs by about n * 2**-104 of the sum
of their magnitudes, whatever the order (contract C3: orders agree to far better than 1e-9). Knuth's TwoSum: D. E.
Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B; double-double addition: T. J. Dekker, Numer. Math.
18, 1971.
"""

from __future__ import annotations

from math import isfinite

Pair = tuple[float, float]


def two_sum(a: float, b: float) -> Pair:
    """The rounded sum and its exact rounding error."""
    s = a + b
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def add(hi: float, lo: float, x: float, x_lo: float = 0.0) -> Pair:
    """(hi + lo) + (x + x_lo). An infinite or undefined sum carries no error term, so that inf stays inf.

    >>> hi, lo = 0.0, 0.0
    >>> for x in (1e16, 1.0, -1e16):
    ...     hi, lo = add(hi, lo, x)
    >>> hi + lo
    1.0
    """
    s, e = two_sum(hi, x)
    if not isfinite(s):
        return s, 0.0
    t, f = two_sum(lo, x_lo)
    s, e = _renormalize(s, e + t)
    return _renormalize(s, e + f)


def split(value: float | int) -> Pair:
    """A number as a pair; an integer of up to 106 bits is exact.

    >>> split(2**63 - 1)
    (9.223372036854776e+18, -1.0)
    """
    hi = float(value)
    if isinstance(value, int) and not -(2**53) <= value <= 2**53:
        return hi, float(value - int(hi))
    return hi, 0.0


def _renormalize(hi: float, lo: float) -> Pair:
    s = hi + lo
    return s, lo - (s - hi)
