"""Lists in the order in which they are linked: how the cells of one group are found for a snapshot."""

from typing import Any

from headrace.flows.compiled import kernel
from headrace.flows.state import AFTER, NONE


@kernel
def walk(si, links, slots, head, pointers, ordinal, order, counts, found):
    """Follow the list that starts at column `head` of each of `slots`. Returns how many cells there are in all.

    order: the cells, slot by slot. counts: (slots,) cells of each. found: (slots, pointers) where in the slot's list
    the cell stands that each column of `pointers` names, NONE if it names none. ordinal: (cells of the pool,) scratch.
    """
    n = 0
    for i in range(slots.shape[0]):
        s = slots[i]
        e = si[s, head]
        first = n
        while e != NONE:
            order[n] = e
            ordinal[e] = n - first
            n += 1
            e = links[e, AFTER]
        counts[i] = n - first
        for p in range(pointers.shape[0]):
            e = si[s, pointers[p]]
            found[i, p] = NONE if e == NONE else ordinal[e]
    return n


KERNELS: tuple[Any, ...] = (walk,)
