"""A line for a request, with its trace; errors first, and no flood of them."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from headrace.ops.access_log import AccessLines, AccessLog


class Noting:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def began(self, *given: Any) -> None:
        self.told.append(("began", *given))

    def ended(self, *given: Any) -> None:
        self.told.append(("ended", *given))

    def refused(self, *given: Any) -> None:
        self.told.append(("refused", *given))


def ask(log: Any, status: int, times: int = 1, route: str = "/push") -> None:
    for number in range(times):
        log.began(route)
        log.ended(route, "POST", status, 0.0123456, 10, 20, f"t{number}")


@pytest.mark.parametrize(
    ("lines", "statuses"),
    [("none", []), ("errors", [404, 503]), ("some", [404, 503]), ("all", [200, 404, 503])],
)
def test_which_requests_have_a_line(lines: AccessLines, statuses: list[int]) -> None:
    with capture_logs() as written:
        log = AccessLog(lines, 0.0, beside=Noting())
        for status in (200, 404, 503):
            ask(log, status)
    assert [line["status"] for line in written] == statuses


def test_a_line_says_what_was_asked_and_how_it_went() -> None:
    with capture_logs() as written:
        ask(AccessLog("all", beside=Noting()), 503)
    assert written == [
        {
            "event": "request",
            "log_level": "warning",
            "method": "POST",
            "route": "/push",
            "status": 503,
            "ms": 12.346,
            "bytes_in": 10,
            "bytes_out": 20,
            "trace": "t0",
        }
    ]


def test_a_caller_that_goes_on_asking_wrongly_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    with capture_logs() as written:
        log = AccessLog("errors", beside=Noting())
        now = [0.0]
        monkeypatch.setattr(log._repeats, "_now", lambda: now[0])
        ask(log, 422, times=1000)
        ask(log, 422, route="/get-online-features")
        now[0] = 10.0
        ask(log, 422)
    assert [(line["route"], line.get("repeated")) for line in written] == [
        ("/push", None),
        ("/get-online-features", None),
        ("/push", 999),
    ]


def test_some_is_a_share_of_those_without_error() -> None:
    with capture_logs() as written:
        ask(AccessLog("some", 0.1, beside=Noting(), seed=1), 200, times=2000)
    assert 120 < len(written) < 280


@pytest.mark.parametrize("lines", ["none", "errors", "all"])
def test_who_stands_beside_is_told_of_everything(lines: AccessLines) -> None:
    beside = Noting()
    log = AccessLog(lines, beside=beside)
    with capture_logs():
        ask(log, 200)
        log.refused("unknown")
    ended = ("ended", "/push", "POST", 200, 0.0123456, 10, 20, "t0")
    assert beside.told == [("began", "/push"), ended, ("refused", "unknown")]
