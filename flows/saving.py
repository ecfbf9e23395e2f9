"""A shard's state as the parts of a chain, and back: also into another definition of the view."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from headrace.features.views import ViewDefinition
from headrace.flows.buffer import Prepared
from headrace.flows.chain import Chained, Decoded, Link, follow, size_of
from headrace.flows.changes import Change, Description, OnChange, compare, describe, refusal
from headrace.flows.identity import Names, names_of
from headrace.flows.migration import migrate
from headrace.flows.plan import Plan, compile_view
from headrace.flows.records import Records
from headrace.flows.snapshot import SnapshotError, pack, seal_of

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
PLAIN = ("slot", "time", "effective", "position")


class ShardMeta(Chained):
    """What a part of a shard's chain says beside its arrays.

    slots: how many there are in all; a full part has the records of all, a delta names those that it has. first_key:
    the slot of the first of `keys`. settled: the last instant that has settled. waiting: values of object features of
    the waiting events, by feature.
    """

    view: str
    fingerprint: str
    described: Description
    slots: int
    first_key: int
    keys: list[Any]
    clock: int
    watermark: int
    settled: int
    waiting: dict[str, list[Any]]


@dataclass(frozen=True)
class Position:
    """How far a shard has come, microseconds: see `ShardMeta`."""

    clock: int
    watermark: int
    settled: int


@dataclass(frozen=True)
class Restored:
    """A shard's state, read but not yet taken over. change: None when the definition is that of the snapshot."""

    plan: Plan
    names: Names
    records: Records
    keys: list[Any]
    waiting: Prepared | None
    position: Position
    change: Change | None
    seal: bytes
    sizes: tuple[int, ...]


def packer(
    plan: Plan, names: Names, records: Callable[[], Records], slots: Ints | None, first_key: int, keys: list[Any],
    waiting: Sequence[Prepared], position: Position,
) -> Callable[[Link], bytes]:  # fmt: skip
    """What makes a part. `slots`: those of a delta's records; None: all."""

    def packed(link: Link) -> bytes:
        made = records()
        arrays = made.arrays()
        if slots is not None:
            arrays["slots"] = slots
        objects: dict[str, list[Any]] = {}
        if waiting:
            events = Prepared.concat(waiting)
            arrays.update({f"waiting/{name}": getattr(events, name) for name in PLAIN})
            bits = events.inputs.view(np.int64)
            arrays.update({f"waiting/input/{name}": bits[:, i] for i, name in enumerate(names.inputs)})
            arrays.update({f"waiting/mask/{name}": events.masks[:, i] for i, name in enumerate(names.masks)})
            objects = {name: events.objects[:, i].tolist() for i, name in enumerate(names.objects)}
        meta = ShardMeta(
            link=link,
            view=plan.view.name,
            fingerprint=plan.view.fingerprint(),
            described=describe(plan, names),
            slots=first_key + len(keys),
            first_key=first_key,
            keys=keys,
            clock=position.clock,
            watermark=position.watermark,
            settled=position.settled,
            waiting=objects,
        )
        return pack(msgspec.to_builtins(meta, builtin_types=(bytes,)), arrays)

    return packed


def restored(chain: Sequence[bytes], view: ViewDefinition, *, plain: bool, on_change: OnChange) -> Restored:
    """Read a chain for `view`, as it is defined now.

    Raises:
        SnapshotError: a part is damaged, of another format or view, missing, or the definition has changed so that
            `on_change` has to say more than "refuse".
    """
    parts = follow(chain, ShardMeta, f"view '{view.name}'")
    last = parts[-1][0]
    if last.view != view.name:
        raise SnapshotError(
            f"Snapshot is of view '{last.view}', expected view '{view.name}'. Restore the part of that name."
        )
    change = None
    since = {note.name: note.since for note in last.described.features if note.since}
    if last.fingerprint != view.fingerprint():
        change = compare(last.described, view)
        if on_change == "refuse" and (change.added or change.lost):
            raise refusal(view, change)
        since = change.since
    plan = compile_view(view, plain=plain, since=since)
    names = names_of(plan)
    records = Records.latest([(_slots(*part), _records(*part)) for part in parts])
    if change is None:
        _complete(view, names, records)
    else:
        records = migrate(records, plan, names, last.settled)
    return Restored(
        plan,
        names,
        records,
        _keys(view, parts),
        _waiting(plan, names, last, parts),
        Position(last.clock, last.watermark, last.settled),
        change,
        seal_of(chain[-1]),
        tuple(size_of(arrays) for _, arrays in parts),
    )


def _slots(meta: ShardMeta, arrays: Mapping[str, Array]) -> Ints:
    return arrays["slots"] if meta.link.number else np.arange(meta.slots)


def _records(meta: ShardMeta, arrays: Mapping[str, Array]) -> Records:
    return Records.of_arrays(len(_slots(meta, arrays)), arrays)


def _complete(view: ViewDefinition, names: Names, records: Records) -> None:
    """The snapshot has all that the view keeps: what it does not have would begin empty without anybody's word."""
    wanted = {group.name for group in names.groups} | {f"object/{name}" for name in names.objects}
    missing = wanted.difference(records.lists)
    if missing:
        raise SnapshotError(
            f"Snapshot of view '{view.name}' lacks state of {len(missing)} of {len(wanted)} pieces that the view is "
            "computed from; another version of Headrace wrote it. Use that version, or replay the source from its "
            "beginning into an empty data directory."
        )


def _keys(view: ViewDefinition, parts: Sequence[Decoded[ShardMeta]]) -> list[Any]:
    keys: list[Any] = []
    for meta, _ in parts:
        if meta.first_key != len(keys) or meta.slots != len(keys) + len(meta.keys):
            raise SnapshotError(
                f"Snapshot of view '{view.name}' is damaged: keys from {meta.first_key} on follow {len(keys)} keys. "
                "Restore an earlier checkpoint."
            )
        keys += meta.keys
    return keys


def _waiting(plan: Plan, names: Names, last: ShardMeta, parts: Sequence[Decoded[ShardMeta]]) -> Prepared | None:
    """The events of all parts that had not settled when the last was made.

    For a feature that is new they did not come: its masks are not set.
    """
    found = []
    for meta, arrays in parts:
        if "waiting/slot" not in arrays:
            continue
        n = len(arrays["waiting/slot"])
        inputs = np.zeros((n, max(1, len(names.inputs))))
        bits = inputs.view(np.int64)
        for i, name in enumerate(names.inputs):
            if f"waiting/input/{name}" in arrays:
                bits[:, i] = arrays[f"waiting/input/{name}"]
        masks = np.zeros((n, len(names.masks)), dtype=np.uint8)
        for i, name in enumerate(names.masks):
            if f"waiting/mask/{name}" in arrays:
                masks[:, i] = arrays[f"waiting/mask/{name}"]
        for group in names.groups:
            # What a group takes is what its features take: it may be told in other words when they come and go.
            before = f"waiting/mask/{meta.described.takes.get(group.name)}"
            if f"waiting/mask/{names.masks[group.takes]}" not in arrays and before in arrays:
                masks[:, group.takes] |= arrays[before]
        objects = np.empty((n, len(names.objects)), dtype=object)
        for i, name in enumerate(names.objects):
            for row, value in enumerate(meta.waiting.get(name, ())):
                objects[row, i] = tuple(value) if isinstance(value, list) else value
        events = Prepared(**{name: arrays[f"waiting/{name}"] for name in PLAIN}, inputs=inputs, masks=masks,
                          objects=objects)  # fmt: skip
        found.append(events.take(events.effective > last.settled))
    found = [events for events in found if len(events)]
    return Prepared.concat(found) if found else None
