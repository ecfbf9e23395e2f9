"""State of new features from an operator that was fed the history that they missed.

Both operators compute the same view and have come to the same event. One was restored from a checkpoint of the view
before it was changed: its new features are of a generation of their own and hold nothing. The other began with the
history of the source. New features get the groups and objects of the other under their own generation's names; what
was there stays as it is.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.flows.buffer import Prepared
from headrace.flows.identity import Names, aged
from headrace.flows.lanes import FOREVER, NEVER
from headrace.flows.migration import migrate
from headrace.flows.plan import Plan
from headrace.flows.records import List, Records
from headrace.flows.state import NONE

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


def graft_records(mine: Records, theirs: Records, rows: Ints, plan: Plan, names: Names, since: int, settled: int
                  ) -> Records:  # fmt: skip
    """My records with state of generation `since` from theirs.

    rows: (slots,) their row of each of my slots, -1 where they do not know the entity.
    """
    blank = theirs.n
    taken = Records.joined([theirs, _blank(theirs)]).take(np.where(rows < 0, blank, rows))
    known = rows >= 0
    for group in names.groups:
        if group.name.endswith(f".{since}"):
            source = aged(group.name.partition(".")[0], 0)
            for name in taken.lists:
                if name == source or name.startswith(f"{source}/"):
                    mine.lists[group.name + name.removeprefix(source)] = _renamed(taken.lists[name], since)
            for name in taken.fixed:
                if name.startswith(f"run/{source}/"):
                    mine.fixed[f"run/{group.name}/{name.removeprefix(f'run/{source}/')}"] = taken.fixed[name]
    for name in names.objects:
        if name.endswith(f".{since}"):
            mine.lists[f"object/{name}"] = taken.lists[f"object/{aged(name.partition('.')[0], 0)}"]
    # An event that only features took that are gone is no event of the entity any more.
    mine.fixed["newest"] = np.where(known, taken.fixed["newest"], mine.fixed["newest"])
    mine.fixed["asof"] = np.maximum(mine.fixed["asof"], np.where(known, taken.fixed["asof"], NEVER))
    return migrate(mine, plan, names, settled)


def _renamed(cells: List, since: int) -> List:
    """Pending events have masks, which are named by generation."""
    return List(
        cells.counts,
        {aged(n.partition(".")[0], since) if n.endswith(".0") else n: column for n, column in cells.columns.items()},
    )


def _blank(like: Records) -> Records:
    """The record of an entity that nothing is known of."""
    instants = {"newest": NEVER, "asof": NEVER, "next": FOREVER, "written": NEVER}
    fixed = {}
    for name, column in like.fixed.items():
        fixed[name] = np.zeros((1, *column.shape[1:]), dtype=column.dtype)
        fixed[name][:] = NONE if name.startswith("run/") else instants.get(name, 0)
    lists = {
        name: List(np.zeros(1, dtype=np.int64), {c: values[:0] for c, values in cells.columns.items()})
        for name, cells in like.lists.items()
    }
    return Records(1, fixed, lists)


def graft_waiting(
    mine: Prepared | None, theirs: Prepared | None, slots: Ints, names: Names, other: Names, since: int
) -> Prepared | None:
    """My waiting events with what features of generation `since` take of them, and those that only they take.

    Those that they do not have concern no feature that there is now.

    slots: (their slots,) my slot of each of theirs. other: names of their plan.
    """
    if theirs is None:
        return None
    n = len(theirs)
    inputs = np.zeros((n, max(1, len(names.inputs))))
    bits, given = inputs.view(np.int64), theirs.inputs.view(np.int64)
    masks = np.zeros((n, len(names.masks)), dtype=np.uint8)
    objects = np.empty((n, len(names.objects)), dtype=object)
    for i, name in enumerate(names.inputs):
        if name in other.inputs:
            bits[:, i] = given[:, other.inputs.index(name)]
    for i, name in enumerate(names.masks):
        base, _, age = name.partition(".")
        if int(age) == since and aged(base, 0) in other.masks:
            masks[:, i] = theirs.masks[:, other.masks.index(aged(base, 0))]
    for group in names.groups:
        # What a group takes may be told in other words there, where it serves more features; an op's mask never is.
        takes = aged(names.masks[group.takes].partition(".")[0], 0)
        if group.name.endswith(f".{since}") and takes not in other.masks:
            source = aged(group.name.partition(".")[0], 0)
            for each in (o for o in other.groups if o.name == source):
                masks[:, group.takes] |= theirs.masks[:, each.takes]
    for i, name in enumerate(names.objects):
        base, _, age = name.partition(".")
        if int(age) == since:
            objects[:, i] = theirs.objects[:, other.objects.index(aged(base, 0))]
    theirs = replace(theirs, slot=slots[theirs.slot], inputs=inputs, masks=masks, objects=objects)
    if mine is None:
        return theirs.take(np.asarray(masks.any(axis=1)))
    places = {(int(p), int(t)): row for row, (p, t) in enumerate(zip(theirs.position, theirs.time, strict=True))}
    rows = np.array(
        [places.pop((int(p), int(t)), -1) for p, t in zip(mine.position, mine.time, strict=True)], dtype=np.int64
    )
    merged = Prepared(**{name: array.copy() for name, array in mine.arrays().items()})
    found = rows >= 0
    merged.masks[found] |= masks[rows[found]]
    for i, name in enumerate(names.inputs):
        if name in other.inputs:
            merged.inputs.view(np.int64)[found, i] = bits[rows[found], i]
    for i, name in enumerate(names.objects):
        if name.endswith(f".{since}"):
            merged.objects[found, i] = objects[rows[found], i]
    rest = theirs.take(np.array(sorted(places.values()), dtype=np.int64))
    return Prepared.concat([merged.take(found), rest.take(np.asarray(rest.masks.any(axis=1)))])
