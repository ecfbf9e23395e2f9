"""A data folder as runs and backfills leave it, judged: online store, log, what is served and training sets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import headrace
from headrace.materialize.verifying import check_online
from tests.oracle.judging import check_log, check_reading, settled_before, wrong_features
from tests.oracle.naive import Key, Oracle, Reading
from tests.oracle.operator import rows_of
from tests.oracle.replayed import instant


def served(client: headrace.Client, view: Any, names: Sequence[str], key: Key, t: int | None) -> tuple[int, Reading]:
    """What the lookup client says at `t` (None: where the run stands), and of which instant."""
    at = None if t is None else instant(t)
    got = client.get(view, dict(zip(names, key, strict=True)), at=at)
    newest = None if got.newest_event is None else _us(got.newest_event)
    return _us(got.at), Reading(got.to_dict(), {name: str(status) for name, status in got.status.items()}, newest)


def _us(moment: Any) -> int:
    return (moment - instant(0)) // (instant(1) - instant(0))


def check_served(oracle: Oracle, definition: Any, client: headrace.Client, at: int | None = None) -> None:
    """Every entity is served as it is at the clock; `at` says it where that is the wall's."""
    for key in oracle.entities:
        t, reading = served(client, definition, oracle.view.keys, key, at)
        assert t == (oracle.judged.clock if at is None else at)
        check_reading(oracle, key, t, reading)


def check_folder(root: Path, oracle: Oracle, definition: Any, times: Sequence[int], at: int | None = None) -> None:
    """Store, log and a training set of a data folder whose runs have taken what the oracle has; `at`: the wall's
    clock, of a folder that was written live."""
    with headrace.EmbeddedStore(root / "online", read_only=True) as store:
        check_served(oracle, definition, headrace.Client(store), at)
    if not oracle.judged.taken:
        return
    view, log = oracle.view, headrace.OfflineLog(root / "log")
    with headrace.EmbeddedStore(root / "online", read_only=True) as store:
        verified = check_online(definition, store, log, extra=True)
    assert not verified.differences, verified
    assert view.log_every is not None or not verified.undecided, verified
    check_log(oracle, rows_of(log.scan(definition, tail=False)), settled_before(oracle))
    check_log(oracle, rows_of(log.scan(definition)), None)
    if view.log_every is None:
        check_training(oracle, definition, times, lambda spine, **how: headrace.training_set(spine, **how, log=log))


def check_training(
    oracle: Oracle,
    definition: Any,
    times: Sequence[int],
    made: Callable[..., Any],
    keys: Sequence[Key] | None = None,
) -> None:
    """A training set of entities (all, if none are named) and one that was never seen, at every instant asked.

    made: gives it for a spine, as `headrace.training_set`.
    """
    view = oracle.view
    some = oracle.entities if keys is None else keys
    asked = [(key, t) for key in [*some, ("nobody", 1)[: len(view.keys)]] for t in times]
    spine = [dict(zip(view.keys, key, strict=True)) | {"t": instant(t)} for key, t in asked]
    got = rows_of(made(spine, features=definition, time="t", statuses=True))
    for row, (key, t) in zip(got, asked, strict=True):
        expected = oracle.read(key, t)
        seen = not {"NOT_FOUND", "OUTSIDE_MAX_AGE"} & set(expected.statuses.values())
        wrong = wrong_features(oracle, key, t, row, seen=seen)
        assert not wrong, f"{key} at {t}: (got, expected) {wrong}"
        assert {name: row[f"{name}__status"] for name in expected.statuses} == expected.statuses


class Stopped(Exception):
    """A backfill was interrupted."""


def stopping(steps: int) -> Callable[[Any], None]:
    """A progress function that interrupts after so many steps."""
    left = iter(range(steps))

    def progress(step: Any) -> None:
        if next(left, None) is None:
            raise Stopped

    return progress
