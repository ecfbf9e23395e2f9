"""Web hooks, functions, lines: rows arrive at least once whatever the other end does; poison alone is given up."""

from __future__ import annotations

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.flows.sinks.receiver import Answer, receiver
from tests.flows.sinks.simulated import Flow, place, rows

from headrace.features.errors import DefinitionError, PoisonError
from headrace.features.sinks import CallableSink, StdoutSink, WebhookSink
from headrace.flows.sinks import delivery, writer_of
from headrace.stores.errors import UnreachableError


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a test's length."""
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(delivery, "LONGEST_PAUSE_S", 0.01)


def test_each_row_is_posted_with_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "s3cret-token")
    with receiver() as there:
        sink = WebhookSink(there.url, headers={"Authorization": "Bearer ${HOOK_TOKEN}"})
        assert "s3cret" not in repr(sink)
        flow = Flow(sink, tmp_path)
        flow.send(2)
        flow.end()
    assert [post.body for post in there.posts] == [
        {"number": 0, "driver_id": "d0", "fare": None, "raw": None, "at": "2025-12-31T23:59:57Z"},
        {"number": 1, "driver_id": "d1", "fare": 0.25, "raw": "Af8=", "at": "2025-12-31T23:59:57.5Z"},
    ]
    assert [post.headers["idempotency-key"] for post in there.posts] == ["pickups.alerts/0-0-0", "pickups.alerts/0-1-0"]
    assert {post.headers["authorization"] for post in there.posts} == {"Bearer s3cret-token"}
    assert {post.path for post in there.posts} == {"/alerts"}


def test_batches_and_ids_in_rows(tmp_path: Path) -> None:
    with receiver() as there:
        flow = Flow(WebhookSink(there.url, batch=4, ids="id"), tmp_path)
        flow.send(10)
        flow.end()
    assert all(len(post.body) <= 4 for post in there.posts)
    assert [row["id"] for post in there.posts for row in post.body] == [f"pickups.alerts/0-{i}-0" for i in range(10)]


@pytest.mark.parametrize("trouble", [503, 429, 404, 401, 302, (503, {"Retry-After": "0"}), None])
def test_an_answer_that_is_not_of_the_rows_is_waited_out(
    trouble: Answer, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "s3cret-token")
    answers = iter([204, trouble, trouble, 200, 204])
    with receiver() as there, caplog.at_level(logging.WARNING, "headrace.sinks"):
        there.answers = lambda _: next(answers)
        flow = Flow(WebhookSink(there.url, headers={"Authorization": "Bearer ${HOOK_TOKEN}"}), tmp_path)
        flow.send(3)
        flow.end()
    assert [post.body["number"] for post in there.posts] == [0, 1, 1, 1, 2]
    assert flow.dead == []
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert said[0].startswith(
        "Step 'pickups.alerts': web hook at http://127.0.0.1 does not take rows and is tried again:"
    )
    assert "takes rows again" in said[1]
    assert "s3cret" not in caplog.text


def test_rows_that_are_refused_become_dead_letters_and_the_others_of_their_batch_get_through(tmp_path: Path) -> None:
    taken: list[int] = []

    def answer(body: list[dict[str, Any]]) -> Answer:
        if any(row["number"] in (2, 7) for row in body):
            return 422
        taken.extend(row["number"] for row in body)
        return 200

    with receiver() as there:
        there.answers = answer
        flow = Flow(WebhookSink(there.url, batch=5), tmp_path)
        flow.send(10)
        flow.end()
    assert taken == [0, 1, 3, 4, 5, 6, 8, 9]
    assert [(letter.reason, letter.source, letter.offset) for letter in flow.dead] == [
        ("failed", "pickups.alerts", 2),
        ("failed", "pickups.alerts", 7),
    ]
    assert json.loads(flow.dead[0].payload)["number"] == 2
    assert flow.dead[0].detail.startswith(
        "step 'pickups.alerts': web hook at http://127.0.0.1 refuses it: it answered 422"
    )


def test_a_checkpoint_waits_until_rows_are_taken_and_a_killed_flow_sends_them_again(tmp_path: Path) -> None:
    got: list[tuple[int, str]] = []

    def function(given: list[dict[str, Any]], ids: list[str]) -> None:
        got.extend(zip((row["number"] for row in given), ids, strict=True))

    flow = Flow(CallableSink(function, ids=True, batch=3), tmp_path)
    flow.send(5)
    flow.checkpoint()
    assert [number for number, _ in got] == [0, 1, 2, 3, 4]
    flow.send(4)
    flow.checkpoint("flushed")  # killed before it counts
    flow.send(6)
    flow.end()
    assert [number for number, _ in got] == [*range(9), *range(5, 11)]
    assert len(dict(got)) == len({row_id for _, row_id in got}) == 11  # a row's id is the same when it comes again


def test_a_sink_that_is_slow_holds_the_flow_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "WAITING_ROWS", 10)
    gate, entered = threading.Event(), threading.Event()
    got: list[int] = []

    def function(given: list[dict[str, Any]]) -> None:
        entered.set()
        gate.wait()
        got.extend(row["number"] for row in given)

    flow = Flow(CallableSink(function, batch=2), tmp_path)
    flow.send(10)
    assert entered.wait(10)
    done = threading.Event()

    def more() -> None:
        flow.send(5)
        done.set()

    thread = threading.Thread(target=more)
    thread.start()
    assert not done.wait(0.05)  # it can only hold too early, never fail for slowness
    gate.set()
    thread.join(30)
    flow.end()
    assert got == list(range(15))


def test_a_function_that_raises_is_called_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    got: list[int] = []
    failures = iter([ValueError("not now"), KeyError("nor now"), None, None])

    def function(given: list[dict[str, Any]]) -> None:
        failure = next(failures)
        if failure is not None:
            raise failure
        got.extend(row["number"] for row in given)

    flow = Flow(CallableSink(function), tmp_path)
    flow.send(3)
    flow.end()
    assert got == [0, 1, 2]
    assert "ValueError: not now" in caplog.records[0].getMessage()


def test_rows_of_a_function_that_are_poison(tmp_path: Path) -> None:
    got: list[int] = []

    def function(given: list[dict[str, Any]]) -> None:
        if any(row["number"] == 1 for row in given):
            raise PoisonError("one is no number")
        got.extend(row["number"] for row in given)

    flow = Flow(CallableSink(function, batch=3), tmp_path)
    flow.send(3)
    flow.end()
    assert got == [0, 2]
    assert [letter.detail.partition(": ")[2] for letter in flow.dead] == [
        f"function {function.__qualname__} refuses it: one is no number"
    ]


@pytest.mark.parametrize("form", ["rows", "arrow", "pandas", "polars"])
def test_the_forms_of_rows(form: str, tmp_path: Path) -> None:
    got: list[Any] = []
    flow = Flow(CallableSink(got.append, as_=form), tmp_path)
    flow.send(3)
    flow.end()
    (given,) = got
    names = list(given[0]) if form == "rows" else list(given.column_names if form == "arrow" else given.columns)
    assert names == ["number", "driver_id", "fare", "raw", "at"]
    assert len(given) == 3


def test_told_to_give_up(tmp_path: Path) -> None:
    """The checkpoint does not count; the flow ends with an error that says so."""

    def function(_: Any) -> None:
        where.give_up.set()
        raise ConnectionError("nobody there")

    where = place(tmp_path)
    writer = writer_of(CallableSink(function), where)
    writer.open(None)
    writer.write(rows(0, 3))
    with pytest.raises(UnreachableError, match="told to stop: ConnectionError: nobody there"):
        writer.flush()
    writer.close()


def test_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flow = Flow(StdoutSink(), tmp_path)
    flow.send(2)
    flow.end()
    assert [json.loads(line)["number"] for line in capsys.readouterr().out.splitlines()] == [0, 1]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: WebhookSink("hooks.example.com/a"), "is no http:// or https:// address"),
        (lambda: WebhookSink("https://me:pw@host/a"), "has a password in it"),
        (lambda: WebhookSink("https://host/a?token=abc"), "'token' of url= is a secret"),
        (lambda: WebhookSink("https://host/a", headers={"X-Api-Key": "abc"}), "header X-Api-Key is a secret"),
        (lambda: WebhookSink("https://host/a", headers={"A": "b\nC: d"}), "holds a line break"),
        (lambda: WebhookSink("https://host/a", batch=0), "1 or more"),
        (lambda: CallableSink(3), "expected a function"),  # type: ignore[arg-type]
        (lambda: CallableSink(print, as_="numpy"), "Choose one of 'rows'"),
    ],
)
def test_definitions_that_are_wrong(make: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        make()


def test_secrets_are_named_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sink = WebhookSink("${HOOK_URL}")
    with pytest.raises(DefinitionError, match="HOOK_URL"):
        writer_of(sink, place(tmp_path))
    monkeypatch.setenv("HOOK_URL", "ftp://s3cret")
    with pytest.raises(DefinitionError, match="is no http") as wrong:
        writer_of(sink, place(tmp_path))
    assert "s3cret" not in str(wrong.value)
