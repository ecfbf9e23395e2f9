"""The machine that runs the steps of avro_program.py over messages, compiled.

A step is (what, first, second, lane): `first` is a size, a number of symbols or the place of another step, `second` the
number of branches of a union, `lane` where the value goes, -1 for nowhere.
"""

import numpy as np

from headrace.flows.compiled import kernel, step

BOOL, LONG, FLOAT, DOUBLE, BYTES, FIXED, ENUM, UNION, JUMP, BLOCKS, NEXT = range(11)
DEPTH = 16
"""How deep arrays and maps may lie in each other."""


@step
def varint(block, at, end):
    """A zigzag number of up to ten bytes and the place after it, which is -1 if there is none."""
    value = np.uint64(0)
    shift = 0
    while at < end and shift < 70:
        byte = np.uint64(block[at])
        at += 1
        value |= (byte & np.uint64(0x7F)) << np.uint64(shift)
        if byte < 0x80:
            if shift == 63 and byte > 1:
                return np.int64(0), -1
            return np.int64(value >> np.uint64(1)) ^ -np.int64(value & np.uint64(1)), at
        shift += 7
    return np.int64(0), -1


@kernel
def run(block, starts, ends, steps, table, values, sizes, given, bad, back):
    """Run the steps over each message block[starts[i]:ends[i]]; fills values, sizes and given (lanes, n), and bad (n,).

    values: numbers as they are, floats as their bits, of bytes the place in the block with their length in `sizes`.
    back: (DEPTH,) scratch: of each open array or map the items left.
    """
    for i in range(starts.shape[0]):
        at = starts[i]
        end = ends[i]
        here = 0
        depth = 0
        good = at <= end
        while good and here < steps.shape[0]:
            op = steps[here, 0]
            first = steps[here, 1]
            lane = steps[here, 3]
            here += 1
            value = np.int64(0)
            size = np.int64(0)
            if op in (LONG, ENUM, BYTES, UNION):
                value, at = varint(block, at, end)
                if at < 0:
                    good = False
                elif op == BYTES:
                    size = value
                    value = at
                    good = 0 <= size <= end - at
                    at += size
                elif op == ENUM:
                    good = 0 <= value < first
                elif op == UNION:
                    good = 0 <= value < steps[here - 1, 2]
                    if good:
                        here = table[first + value]
            elif op in (DOUBLE, FLOAT):
                width = 8 if op == DOUBLE else 4
                good = end - at >= width
                if good:
                    bits = np.uint64(0)
                    for k in range(width):
                        bits |= np.uint64(block[at + k]) << np.uint64(8 * k)
                    value = np.int64(bits)
                    at += width
            elif op == BOOL:
                good = at < end and block[at] <= 1
                if good:
                    value = np.int64(block[at])
                    at += 1
            elif op == FIXED:
                good = end - at >= first
                value = at
                size = first
                at += first
            elif op == JUMP:
                here = first
            else:
                if op == BLOCKS:
                    good = depth < DEPTH
                    if good:
                        back[depth] = 0
                        depth += 1
                    after = first
                    body = here
                else:
                    back[depth - 1] -= 1
                    after = here
                    body = first + 1
                if good and back[depth - 1] <= 0:
                    value, at = varint(block, at, end)
                    if at >= 0 and value < 0:  # a block that also says how many bytes it has
                        value = -value
                        size, at = varint(block, at, end)
                    good = at >= 0 and 0 <= value <= end - at
                    if good:
                        back[depth - 1] = value
                if good:
                    if back[depth - 1] == 0:
                        depth -= 1
                        here = after
                    else:
                        here = body
            if lane >= 0 and good:
                values[lane, i] = value
                sizes[lane, i] = size
                given[lane, i] = True
        bad[i] = not good or at != end
