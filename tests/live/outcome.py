"""What a reader sees of a flow after a run, and whether it is what the oracle expects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.features.reading import read_at
from headrace.features.time import instant_us
from headrace.flows.recording import LOG, ONLINE
from headrace.flows.worker.recomputing import recompute
from headrace.flows.worker.settings import FlowSettings
from headrace.materialize.verifying import check_log as compare_logs
from headrace.serving import Client
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.offline import OfflineLog
from headrace.stores.online import PositionedStore, StoredRow
from headrace.stores.opening import open_online
from tests.live.definitions import LiveSource
from tests.live.expected import Dead, dead_of, oracle_of
from tests.live.flow import LiveFlow
from tests.live.streams import Message
from tests.oracle.judging import check_log, settled_before, wrong_features
from tests.oracle.naive import Key, Oracle, Reading, turning_points
from tests.oracle.operator import rows_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """Everything of one flow that a reader can see.

    Attributes:
        log: settled rows by view, in the order of a scan. whole: with those that would follow if nothing else came.
        online: stored rows by view and key. dead: dead letters, sorted. clock: of the online store.
    """

    log: dict[str, list[Row]]
    whole: dict[str, list[Row]]
    online: dict[str, dict[Key, StoredRow]]
    dead: list[Dead]
    clock: int | None


def online_store(flow: LiveFlow) -> PositionedStore:
    """The flow's online store, for reading."""
    if flow.online is None:
        return open_online(flow.data / ONLINE, read_only=True)
    return open_online(flow.online, project=flow.project, read_only=True)


def dead_letters(flow: LiveFlow) -> list[Dead]:
    """Topic, partition, offset and reason of every dead letter, sorted."""
    letters = read_dead_letters(OfflineLog(flow.data / LOG)).to_pylist()
    return sorted((each["topic"], each["partition"], each["offset"], each["reason"]) for each in letters)


def outcome_of(flow: LiveFlow) -> Outcome:
    log = OfflineLog(flow.data / LOG)
    views = {name: view for source in flow.sources for name, view in source.definitions(flow.bootstrap).items()}
    store = online_store(flow)
    try:
        clock = store.clock()
        known = set(log.views())
        return Outcome(
            {name: rows_of(log.scan(view, tail=False)) if name in known else [] for name, view in views.items()},
            {name: rows_of(log.scan(view)) if name in known else [] for name, view in views.items()},
            {name: {tuple(key.values()): row for key, row in store.scan(view)} for name, view in views.items()},
            dead_letters(flow),
            None if clock is None else clock.us,
        )
    finally:
        store.close()


def check_dead(flow: LiveFlow, messages: Sequence[Message]) -> None:
    """Every message that is no event, or came too late, is among the dead letters: once, where it was, and no other."""
    expected = [each for source in flow.sources for each in dead_of(source.stream, messages_of(source, messages))]
    got = dead_letters(flow)
    assert got == sorted(expected), differences(got, expected)


def check_offline(
    flow: LiveFlow, messages: Sequence[Message], *, tail: bool = True, people: Collection[str] | None = None
) -> None:
    """The log holds the oracle's rows, each once, whatever part wrote them.

    All partitions must have come equally far, so that they have one watermark: what is before it is final. tail:
    whether what would follow is there too, as after a run to the ends of the topics. people: only these.
    """
    log = OfflineLog(flow.data / LOG)
    for source in flow.sources:
        mine = messages_of(source, messages)
        for name, view in source.definitions(flow.bootstrap).items():
            oracle = oracle_of(source.views[name], mine, people)
            if not oracle.judged.taken:
                continue
            final, whole = (
                by_instant([row for row in rows_of(rows) if people is None or row["who"] in people])
                for rows in (log.scan(view, tail=False), log.scan(view))
            )
            check_log(oracle, final, settled_before(oracle))
            if tail:
                check_log(oracle, whole, None)
            else:
                assert whole == final, f"{name}: a tail that nobody expects"


def check_verified(flow: LiveFlow, folder: Path) -> None:
    """What `headrace verify` computes anew from the topics is what the log says."""
    views = [view for source in flow.sources for view in source.definitions(flow.bootstrap).values()]
    made = recompute(views, FlowSettings(name=flow.name, data=str(flow.data)), str(folder))
    assert not made.left
    assert not any(made.begins.values())
    log, anew = OfflineLog(flow.data / LOG), OfflineLog(folder / LOG)
    for view in views:
        check = compare_logs(view, log, anew)
        assert not check.differences, check
        assert check.rows


def differences(got: Iterable[Any], expected: Iterable[Any]) -> str:
    """What is too much and what is missing, with how often."""
    more, less = Counter(list(got)), Counter(list(expected))
    return f"too much: {list((more - less).items())[:8]}; missing: {list((less - more).items())[:8]}"


def by_instant(rows: list[Row]) -> list[Row]:
    """Rows of several parts, each in order of its own, as one log."""
    return sorted(rows, key=lambda row: int(row["event_timestamp"]))


def messages_of(source: LiveSource, messages: Iterable[Message]) -> list[Message]:
    names = {topic.name for topic in source.topics}
    return [message for message in messages if message.topic in names]


def check_online(
    flow: LiveFlow,
    messages: Sequence[Message],
    *,
    lag_us: int = 0,
    people: Collection[str] | None = None,
) -> None:
    """What is served now is the oracle's answer (contract C5, C17), and every stored row is right as of its instant.

    lag_us: how old an answer may be: it must be that of an instant at most so long ago. people: only these.
    """
    store = online_store(flow)
    try:
        client = Client(store)
        for source in flow.sources:
            mine = messages_of(source, messages)
            for name, view in source.definitions(flow.bootstrap).items():
                oracle = oracle_of(source.views[name], mine, people)
                stored = {
                    tuple(key.values()): row for key, row in store.scan(view) if people is None or key["who"] in people
                }
                if source.views[name].ttl is None:
                    assert set(stored) == set(oracle.entities), f"{name}: {differences(stored, oracle.entities)}"
                for key in oracle.entities:
                    vector = client.get(view, dict(zip(oracle.view.keys, key, strict=True)))
                    newest = None if vector.newest_event is None else instant_us(vector.newest_event, "newest_event")
                    statuses = {feature: str(status) for feature, status in vector.status.items()}
                    served = Reading(vector.to_dict(), statuses, newest)
                    _check_served(oracle, name, key, instant_us(vector.at, "at"), lag_us, served)
                    if key in stored:
                        _check_stored(oracle, name, view, key, stored[key])
    finally:
        store.close()


def _check_served(oracle: Oracle, name: str, key: Key, t: int, lag_us: int, served: Reading) -> None:
    told = {}
    for s in moments(oracle, key, t, lag_us):
        expected = oracle.read(key, s)
        seen = not {"NOT_FOUND", "OUTSIDE_MAX_AGE"} & set(expected.statuses.values())
        # What fades, fades for the reader at the instant asked, whatever row is there.
        wrong = wrong_features(oracle, key, s, served.values, seen=seen)
        if not wrong and served.statuses == expected.statuses and served.newest == expected.newest:
            return
        gone = set(served.statuses.values()) == {"NOT_FOUND"} and served.newest is None
        if not wrong and gone and set(expected.statuses.values()) == {"OUTSIDE_MAX_AGE"}:
            return  # Redis forgets rows that are past their ttl
        told[s] = wrong or (served.statuses, expected.statuses, served.newest, expected.newest)
    raise AssertionError(f"{name} {key} served at {t}: by instant (got, expected) {told}")


def moments(oracle: Oracle, key: Key, t: int, lag_us: int) -> list[int]:
    """`t`, and the ends of the spans within `lag_us` before it in which nothing changed."""
    if not lag_us:
        return [t]
    points = {
        point
        for feature in oracle.features
        for one in oracle.taken(key)
        for point in turning_points(feature.window, one.since, one.event.time)
    }
    if oracle.view.ttl is not None:
        points |= {one.since + oracle.view.ttl for one in oracle.taken(key)}
    return [t, *(point - 1 for point in sorted(points, reverse=True) if t - lag_us < point <= t)]


def _check_stored(oracle: Oracle, name: str, view: Any, key: Key, row: StoredRow) -> None:
    at = row.event_timestamp_us
    values, _ = read_at(view, row.values, at, row.newest_event_us, at)
    wrong = wrong_features(oracle, key, at, values)
    if oracle.view.ttl is not None and oracle.newest(key, at) is not None and wrong:
        newest = oracle.newest(key, at)
        assert newest is not None
        if newest <= at - oracle.view.ttl:
            return
    assert not wrong, f"{name} {key}: the row as of {at} has (got, expected) {wrong}"
    assert row.newest_event_us == oracle.newest(key, at), f"{name} {key}: newest event of the row as of {at}"
