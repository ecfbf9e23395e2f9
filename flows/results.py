"""From the lanes of a window to the value of a feature: nulls, defaults, and whether the value differs from the last.

One result is one numeric feature. Its row of the results table names the window, the lane where its op starts and the
lane that counts its inputs; the result is written as the 8 bytes of a float64 or an int64 with a validity flag.
"""

import math

from headrace.flows.compiled import step
from headrace.flows.lanes import NEVER, divide
from headrace.flows.state import ASOF, G_DELAY, W_GROUP, WRITTEN
from headrace.flows.tiles import window_lanes

(
    COUNTED,  # inputs counted; 0 when empty
    SUM_FLOAT,  # double-double sum; 0.0 when empty
    SUM_INT,  # int64 sum; 0 when empty, null beyond int64
    MEAN_FLOAT,
    MEAN_INT,
    EXTREME,  # min or max of either type
    VARIANCE,  # of the sample: null below two inputs
    DEVIATION,
    ENDPOINT,  # first or last
    DECAYED_SUM,  # as of the row; null when empty
    DECAYED_MEAN,
) = range(11)

# Columns of the results table.
R_CODE, R_WINDOW, R_LANE, R_INPUTS, R_DEFAULT, R_HIDDEN, R_OP = range(7)

# What stands in place of a window without inputs, and of null.
NO_DEFAULT, VALUE, NULL = range(3)

# Kinds of a row: only lanes that feed something else changed, a value changed, an event came.
CANDIDATE, CHANGED, EVENT = range(3)


@step
def finish(t, r, f, i, elapsed_since, of, oj, row):
    """Write result `r` from the window lanes `f`/`i` (row 0) to (`row`, `r`); returns whether it is not null.

    `elapsed_since`: the instant the value is asked at, microseconds.
    """
    code = t.results[r, R_CODE]
    p = t.results[r, R_LANE]
    n = i[0, t.results[r, R_INPUTS]]
    if n == 0:
        if t.results[r, R_DEFAULT] == VALUE:
            of[row, r] = t.defaults[r]
            return True
        oj[row, r] = 0
        if t.results[r, R_DEFAULT] == NULL:
            return False
        return code in (COUNTED, SUM_FLOAT, SUM_INT)
    valid = True
    if code == COUNTED:
        oj[row, r] = n
        return True
    if code in (SUM_FLOAT, MEAN_FLOAT):
        v = f[0, p]
        if not math.isfinite(v):
            of[row, r] = v
        elif code == MEAN_FLOAT:
            of[row, r] = divide(v, f[0, p + 1], float(n))
        else:
            of[row, r] = v + f[0, p + 1]
    elif code == SUM_INT:
        oj[row, r] = i[0, p]
        valid = abs(f[0, p + 1] - float(i[0, p])) < 4.611686018427388e18
    elif code == MEAN_INT:
        exact = abs(f[0, p + 1] - float(i[0, p])) < 4.611686018427388e18
        of[row, r] = (float(i[0, p]) if exact else f[0, p + 1]) / n
    elif code == EXTREME:
        oj[row, r] = i[0, p]
    elif code in (VARIANCE, DEVIATION):
        valid = n > 1
        v = f[0, p + 3] / (n - 1) if valid else 0.0
        of[row, r] = math.sqrt(v) if code == DEVIATION else v
    elif code == ENDPOINT:
        oj[row, r] = i[0, p + 2]
    else:
        if code == DECAYED_SUM:
            of[row, r] = f[0, p + 1] * 2.0 ** (-float(elapsed_since - i[0, p]) / t.half_life[t.results[r, R_OP]])
        else:
            of[row, r] = f[0, p + 1] / f[0, p + 2]
    if valid and code != SUM_INT and code != EXTREME and code != ENDPOINT:
        valid = not math.isnan(of[row, r])
    if not valid:
        if t.results[r, R_DEFAULT] == VALUE:
            of[row, r] = t.defaults[r]
            return True
        oj[row, r] = 0
    return valid


@step
def _decayed_alike(t, r, last, now, elapsed, drifts):
    """Whether readers of the decayed sum `last` see `now` after `elapsed`, up to the rounding of folds.

    They carry a sum on by time, so the same number later is another value; a default is no sum and stays. `drifts`:
    the row also serves readers that cannot do so, for whom the number itself must be the same.
    """
    stays = t.results[r, R_DEFAULT] == VALUE and last == t.defaults[r]
    expected = last if stays else last * 2.0 ** (-float(elapsed) / t.half_life[t.results[r, R_OP]])
    if stays or drifts:
        return now == last and now == expected
    return now == expected or (math.isfinite(now) and abs(now - expected) <= 1e-9 * abs(now))


@step
def write_row(t, st, s, lane_f, lane_j, of, oj, ok, row, drifts):
    """Write every result of slot `s` at its as-of to row `row`.

    Returns CHANGED if a public value differs from the last one written for the slot, else CANDIDATE; the slot's last
    values are brought up to date. `drifts`: a decay by time alone is a change too.
    """
    kind = CANDIDATE
    window = -1
    elapsed = 0
    if st.si[s, WRITTEN] != NEVER:
        elapsed = st.si[s, ASOF] - st.si[s, WRITTEN]
    st.si[s, WRITTEN] = st.si[s, ASOF]
    for r in range(t.results.shape[0]):
        w = t.results[r, R_WINDOW]
        if w != window:
            window_lanes(t, st, s, w, lane_f, lane_j)
            window = w
        asked = st.si[s, ASOF]
        if asked != NEVER:
            asked -= t.groups[t.windows[w, W_GROUP], G_DELAY]
        valid = finish(t, r, lane_f, lane_j, asked, of, oj, row)
        ok[row, r] = valid
        differs = valid != st.vk[s, r] or oj[row, r] != st.vj[s, r]
        if t.results[r, R_CODE] == DECAYED_SUM and valid and valid == st.vk[s, r]:
            differs = not _decayed_alike(t, r, st.vf[s, r], of[row, r], elapsed, drifts)
        if differs and not t.results[r, R_HIDDEN]:
            kind = CHANGED
        st.vk[s, r] = valid
        st.vj[s, r] = oj[row, r]
    return kind
