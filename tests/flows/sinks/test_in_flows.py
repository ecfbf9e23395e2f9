"""Sinks within a flow: dead letters in the run's, errors before it begins, two sinks of one kind, and live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest
from tests.flows.sinks.receiver import receiver
from tests.flows.sinks.simulated import Alert, alert

from headrace.features import CallableSink, DuckDBSink, Flow, IterableSource, PoisonError, WebhookSink
from headrace.flows.recording import LOG
from headrace.flows.runner import run
from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.deadletters import read_dead_letters
from headrace.stores.errors import SchemaMismatchError
from headrace.stores.offline import OfflineLog


def alerts(n: int) -> IterableSource:
    return IterableSource([alert(i) for i in range(n)], Alert, name="alerts", unit="us")


def test_what_a_sink_refuses_is_among_the_dead_letters_of_the_run(tmp_path: Path) -> None:
    flow = Flow("pickups")
    with receiver() as there:
        there.answers = lambda body: 422 if body["number"] == 3 else 200
        flow.read(alerts(5)).write(WebhookSink(there.url, name="hook"))
        summary = run([flow], tmp_path)
    assert summary.dead == {"failed": 1}
    (letter,) = read_dead_letters(OfflineLog(tmp_path / LOG)).to_pylist()
    assert (letter["reason"], letter["source"], letter["offset"]) == ("failed", "pickups.hook", 3)
    assert "it answered 422" in letter["detail"]
    assert [post.body["number"] for post in there.posts] == [0, 1, 2, 3, 4]


def test_two_sinks_of_one_stream_and_one_of_another(tmp_path: Path) -> None:
    all_of, some, refusing = [], [], []

    def picky(rows: list[dict[str, Any]]) -> None:
        if rows[0]["number"] % 2:
            raise PoisonError("odd")
        refusing.extend(rows)

    flow = Flow("pickups")
    read = flow.read(alerts(6))
    read.write(CallableSink(all_of.extend))
    read.write(CallableSink(picky, batch=1))
    read.filter(Alert.number > 3).write(CallableSink(some.extend, batch=1))
    summary = run([flow], tmp_path, live=True)
    assert [row["number"] for row in all_of] == [0, 1, 2, 3, 4, 5]
    assert [row["number"] for row in some] == [4, 5]
    assert [row["number"] for row in refusing] == [0, 2, 4]
    assert summary.dead == {"failed": 3}


def test_a_table_that_does_not_fit_is_said_before_the_first_event(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        connection.execute("CREATE TABLE alerts (number VARCHAR)")
    flow = Flow("pickups")
    flow.read(alerts(5)).write(DuckDBSink(tmp_path / "a.duckdb", "alerts"))
    with pytest.raises(SchemaMismatchError, match=r"'pickups\.alerts_2'"):
        run([flow], tmp_path / "data")
    checkpoint = read_checkpoint(tmp_path / "data" / LOG)
    assert checkpoint is None or not checkpoint.offsets
