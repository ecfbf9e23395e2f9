"""Compares what the engine gave with the oracle's answer and says where they part."""

from __future__ import annotations

from typing import Any

from tests.oracle.closeness import agrees, derived_agrees, slack_of
from tests.oracle.described import Derived
from tests.oracle.naive import Key, Oracle, Reading


def wrong_features(oracle: Oracle, key: Key, t: int, got: dict[str, Any], *, seen: bool = True) -> dict[str, Any]:
    """Features whose value at `t` is not the oracle's, as name -> (got, expected).

    `seen`: False where the entity is not found or past its ttl, so that nothing counts.
    """
    expected = oracle.values(key, t) if seen else oracle.read(key, t).values
    plain = {f.name: oracle.value(f, key, t) for f in oracle.features}
    wrong = {}
    for f in oracle.view.features:
        if f.name.startswith("_"):
            continue
        if f.name not in got:
            wrong[f.name] = ("no such feature", expected[f.name])
        elif isinstance(f, Derived):
            operands = [
                (plain[one.name], slack_of(one, oracle.content(one, key, t), t - one.window.ending))
                for name in (f.left, f.right)
                for one in oracle.features
                if one.name == name
            ]
            if not derived_agrees(f, got[f.name], expected[f.name], operands):
                wrong[f.name] = (got[f.name], expected[f.name])
        elif not agrees(f, got[f.name], expected[f.name], oracle.content(f, key, t), t - f.window.ending):
            wrong[f.name] = (got[f.name], expected[f.name])
    return wrong


def check_reading(oracle: Oracle, key: Key, t: int, got: Reading) -> None:
    """Values, statuses and newest event of one answer at `t`."""
    expected = oracle.read(key, t)
    seen = "NOT_FOUND" not in expected.statuses.values() and "OUTSIDE_MAX_AGE" not in expected.statuses.values()
    wrong = wrong_features(oracle, key, t, got.values, seen=seen)
    assert not wrong, f"{key} at {t}: (got, expected) {wrong}"
    assert got.statuses == expected.statuses, f"{key} at {t}: statuses {got.statuses}, expected {expected.statuses}"
    assert got.newest == expected.newest, f"{key} at {t}: newest event {got.newest}, expected {expected.newest}"


def settled_before(oracle: Oracle) -> int:
    """The log holds the instants before this one; of a thinned log whole intervals settle."""
    every = oracle.view.log_every
    watermark = oracle.judged.watermark
    return watermark if every is None else (watermark - 1) // every * every + 1


def check_log(oracle: Oracle, rows: list[dict[str, Any]], before: int | None) -> None:
    """The log: exactly the oracle's rows (those before instant `before`, if given), each once, in order of instant."""
    instants = [row["event_timestamp"] for row in rows]
    assert instants == sorted(instants), f"log rows are not in order of instant: {instants}"
    got: dict[Key, list[dict[str, Any]]] = {}
    for row in rows:
        got.setdefault(tuple(row[name] for name in oracle.view.keys), []).append(row)
    assert set(got) <= set(oracle.entities), f"rows of entities that no feature took: {set(got) - set(oracle.entities)}"
    for key in oracle.entities:
        mine = got.get(key, [])
        at = [row["event_timestamp"] for row in mine]
        due = [each for each in intervals(oracle, key) if before is None or each[0][0] < before]
        told = f"{key}: rows at {at}, expected one of each of {[choices for choices, _ in due]}"
        assert len(set(at)) == len(at), told
        for choices, must in due:
            written = [t for t in choices if t in at]
            assert len(written) == 1 or (not written and not must), told
        assert set(at) <= {t for choices, _ in due for t in choices}, told
        for row in mine:
            t, newest = row["event_timestamp"], oracle.newest(key, row["event_timestamp"])
            assert row["newest_event"] == newest, f"{key} at {t}: newest event {row['newest_event']}, expected {newest}"
            wrong = wrong_features(oracle, key, t, row)
            assert not wrong, f"{key} at {t}: (got, expected) {wrong}"


def intervals(oracle: Oracle, key: Key) -> list[tuple[list[int], bool]]:
    """Instants of which the log holds one, or none if the flag is false.

    Without thinning each stands alone. With `log_every` the last row of each interval (k*every, (k+1)*every] stays
    (C18): the last that must be there, or one after it that may.
    """
    every = oracle.view.log_every
    grouped: dict[int, list[tuple[int, bool]]] = {}
    for t, must in oracle.instants(key).items():
        grouped.setdefault(t if every is None else (t - 1) // every, []).append((t, must))
    out = []
    for rows in grouped.values():
        last = max((i for i, (_, must) in enumerate(rows) if must), default=0)
        out.append(([t for t, _ in rows[last:]], any(must for _, must in rows)))
    return out
