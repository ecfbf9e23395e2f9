"""What `stateful` forgets, and that what it remembers may be rows."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.flows.graph.driving import FAR_US, SECOND, START_US, Given, in_order, keyed, moment, rows, streams, told

from headrace.features import Event, EventTime
from headrace.features.streams import Stream
from headrace.flows.graph.stateful import Ordered
from headrace.flows.snapshot import unpack


class Since(Event):
    who: str
    rows: int
    previous: int | None
    at: EventTime


class Keeper:
    def __init__(self) -> None:
        self.kept: list[Any] = []

    def on_event(self, row: Any) -> dict[str, Any]:
        self.kept.append(row)
        return since(self.kept)


def since(kept: list[Any]) -> dict[str, Any]:
    return {"who": kept[-1].who, "rows": len(kept), "previous": kept[-2].x if len(kept) > 1 else None}


def keep(kept: list[Any] | None, row: Any) -> Any:
    kept = [*(kept or []), row]
    return kept, since(kept)


def remembering(function: Any, forget: int | None) -> Stream:
    return keyed().stateful(function, forget_after=None if forget is None else f"{forget}s", gives=Since)


@given(streams(), st.none() | st.integers(1, 15), st.sampled_from([keep, Keeper]), st.data())
def test_a_key_begins_anew_after_a_long_silence(
    arrived: list[Given], forget: int | None, function: Any, data: st.DataObject
) -> None:
    step = remembering(function, forget).step
    node, at = Ordered(step), 0
    out: list[Any] = []
    chain: list[bytes] = []
    while at < len(arrived):
        size = data.draw(st.integers(1, 6))
        part, at = arrived[at : at + size], at + size
        node.take(rows(part))
        out += told(node.advance(min([each.us for each in arrived[at:]], default=START_US)).batch, step.schema)
        if data.draw(st.booleans()):
            part = node.save(full=data.draw(st.booleans()))
            chain = [*(chain if part.delta else []), part.data]
            if data.draw(st.booleans()):
                node = Ordered(step)
                node.load(chain, start=False)
    out += told(node.advance(FAR_US).batch, step.schema)
    expected = []
    kept: dict[Any, list[Given]] = {}
    for each in in_order(arrived):
        before = kept.get(each.who, [])
        if forget is not None and before and each.second - before[-1].second >= forget:
            before = []
        kept[each.who] = [*before, each]
        row = {"who": each.who, "rows": len(before) + 1, "previous": before[-1].x if before else None}
        expected.append(({**row, "at": moment(each.second)}, each.offset))
    assert out == expected


def test_silent_keys_take_no_memory() -> None:
    step = remembering(keep, 5).step
    node = Ordered(step)
    empty = len(node.save(full=True).data)
    node.take(rows([Given(second, f"key {second}", 1, second) for second in range(200)]))
    waiting = len(node.save(full=True).data)
    node.advance(START_US + 200 * SECOND)
    assert len(node.save(full=True).data) - empty < (waiting - empty) / 2
    node.advance(FAR_US)
    assert len(node.save(full=True).data) <= empty + 32


def test_a_checkpoint_holds_keys_that_changed() -> None:
    """A hundred keys; then a few of them at a time, some again after they were forgotten, with a restart each time."""
    step = remembering(Keeper, 30).step
    node, plain = Ordered(step), Ordered(step)
    chain: list[bytes] = []
    deltas = 0
    for turn in range(60):
        who = range(100) if turn == 0 else [(turn * 7 + n) % 100 for n in range(3)]
        events = [Given(turn, f"key {n}", turn, turn * 100 + n) for n in who]
        made = []
        for each in (node, plain):
            each.take(rows(events))
            made.append(told(each.advance(START_US + turn * SECOND).batch, step.schema))
        assert made[0] == made[1]
        part = node.save()
        if part.delta:
            deltas += 1
            assert len(part.data) < len(chain[0]) / 2
        chain = [*(chain if part.delta else []), part.data]
        node = Ordered(step)
        node.load(chain, start=False)
    assert 40 < deltas < 60
    assert [*node._remembered.last] == [*plain._remembered.last]  # longest silent first
    ends = [unpack(each.save(full=True).data)[0] for each in (node, plain)]
    assert len(ends[0]["memory"]) == len(ends[1]["memory"])  # nothing is kept of those forgotten
