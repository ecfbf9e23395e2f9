"""Log lines: JSON with named fields, readable text, no secret whatever carries it, and no flood."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import structlog

from headrace.ops.logs import set_up_logs
from headrace.ops.secrets import forget, remember
from headrace.ops.telling import Several, Status, Teller

PLANTED = "hunter2-PLANTED"


@pytest.fixture
def written() -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """Sets logging up with the options given; its result gives the lines written since."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook, warnings.showwarning

    def set_up(**options: Any) -> Callable[[], list[str]]:
        stream = io.StringIO()
        set_up_logs(stream=stream, **options)
        return lambda: stream.getvalue().splitlines()

    yield set_up
    logging.captureWarnings(False)
    root.handlers[:], root.level, sys.excepthook, threading.excepthook, warnings.showwarning = before
    structlog.reset_defaults()
    forget()


def test_elsewhere_than_on_a_terminal_a_line_is_json(written) -> None:
    lines = written(worker="a-0")
    structlog.get_logger("headrace.x").info("task assigned", part="rides-0001", topic="rides", partition=1, offset=7)
    logging.getLogger("confluent_kafka").warning("broker %s is gone", "b1")
    first, second = map(json.loads, lines())
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "task assigned",
        "level": "info",
        "worker": "a-0",
        "part": "rides-0001",
        "topic": "rides",
        "partition": 1,
        "offset": 7,
    }
    assert (second["event"], second["level"], second["worker"]) == ("broker b1 is gone", "warning", "a-0")


def test_text_is_for_reading(written) -> None:
    lines = written(format="text", worker="a-0")
    structlog.get_logger("headrace.x").info("task assigned", part="rides-0001")
    (line,) = lines()
    assert "task assigned" in line
    assert "part=rides-0001" in line


def test_a_line_says_which_request_it_is_about(written) -> None:
    about: list[str | None] = ["4bf92f35", None]
    lines = written(trace=lambda: about[0])
    logging.getLogger("headrace.serving").error("of a request")
    about.pop(0)
    logging.getLogger("headrace.serving").error("of none")
    first, second = map(json.loads, lines())
    assert first["trace"] == "4bf92f35"
    assert "trace" not in second


def test_the_level_is_kept(written) -> None:
    lines = written(level="warning")
    structlog.get_logger("headrace.x").info("no")
    logging.getLogger("x").info("no")
    assert lines() == []


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_secret_is_written_whatever_carries_it(written, format: str) -> None:
    lines = written(format=format)
    remember(PLANTED)
    remember('with "quotes" and \\')
    log = structlog.get_logger("headrace.x")
    log.info(f"at redis://:{PLANTED}@cache", url=f"redis://u:{PLANTED}@h", settings={"sasl.password": "another"})
    log.info("the other", value=['with "quotes" and \\'])
    logging.getLogger("lib").error("sasl.password=%s", "another")
    try:
        raise ValueError(f"cannot log in with {PLANTED}")
    except ValueError:
        log.exception("failed")
        sys.excepthook(*sys.exc_info())
    thread = threading.Thread(target=lambda: (_ for _ in ()).throw(RuntimeError(PLANTED)))
    thread.start()
    thread.join()
    text = "\n".join(lines())
    assert PLANTED not in text
    assert "another" not in text
    assert "quotes" not in text
    assert text.count("uncaught exception") == 2
    assert "ValueError: cannot log in with ***" in text


def test_a_reader_that_is_gone_stops_nobody(written, monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    set_up_logs(stream=Gone())
    structlog.get_logger("headrace.x").info("nobody reads this")


def test_a_worker_s_lines_are_few_and_say_where(written) -> None:
    lines = written(format="json")
    clock = [0.0]
    teller = Teller(now=lambda: clock[0])
    teller.assigned("rides-0001", "rides", 1)
    for _ in range(100):
        teller.trouble("online store", "connection refused")
        teller.counted("rides-0001", "dead:late", 2)
        teller.counted("rides-0001", "taken", 1)
        teller.batch("rides-0001", 10, 100, {})
        teller.alive()
    clock[0] = 31.0
    teller.position("rides-0001", offset=9, lag=5, watermark_us=None)
    teller.trouble("online store", "connection refused")
    teller.recovered("online store")
    teller.recovered("online store")
    teller.alive()
    found = [{k: v for k, v in json.loads(line).items() if k not in ("timestamp", "level")} for line in lines()]
    assert found == [
        {"event": "task assigned", "part": "rides-0001", "topic": "rides", "partition": 1},
        {"event": "online store fails; trying again", "what": "online store", "message": "connection refused"},
        {"event": "events could not be taken", "part": "rides-0001", "reason": "late", "count": 2},
        {
            "event": "online store fails; trying again",
            "what": "online store",
            "message": "connection refused",
            "repeated": 99,
        },
        {"event": "online store works again", "what": "online store", "after_s": 31.0},
        {
            "event": "progress",
            "events": 1_000,
            "events_per_s": 32.3,
            "lag": 5,
            "checkpoints": 0,
            "dead": {"late": 200},
        },
    ]


def test_status_is_what_a_supervisor_shows() -> None:
    status = Status()
    all_of_them = Several(status)
    nothing = {"events": 0, "dead": 0, "ready": False, "parts": 0, "lag": 0, "trouble": None, "fresh_s": None}
    assert status.read() == nothing
    all_of_them.assigned("rides-0001", "rides", 1)
    assert status.read()["lag"] is None
    all_of_them.position("rides-0001", offset=9, lag=5, watermark_us=None)
    all_of_them.position("gone", offset=9, lag=5, watermark_us=None)
    all_of_them.batch("rides-0001", 10, 100, {})
    all_of_them.counted("rides-0001", "dead:late", 2)
    all_of_them.counted("rides-0001", "taken", 8)
    all_of_them.ready(True)
    all_of_them.alive()
    all_of_them.wrote("v", "online", 1, 0.1)
    all_of_them.freshness(np.arange(101.0))
    all_of_them.freshness(np.zeros(1))
    all_of_them.freshness(np.zeros(0))
    all_of_them.checkpoint("rides-0001", seconds=1.0, nbytes=1, delta=True)
    all_of_them.trouble("kafka", "gone")
    told = nothing | {"events": 10, "dead": 2, "ready": True}
    assert status.read() == told | {"parts": 1, "lag": 5, "trouble": "kafka", "fresh_s": 99.0}
    all_of_them.recovered("kafka")
    all_of_them.revoked("rides-0001")
    assert status.read() == told
