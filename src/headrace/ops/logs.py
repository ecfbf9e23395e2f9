"""Structured logs on stderr: readable lines on a terminal, JSON elsewhere; without secrets, and never a flood.

Everything goes the same way: our own lines, those of libraries through `logging`, warnings and uncaught exceptions.
Fields are named alike everywhere: part, topic, partition, offset, view, reason; `trace` is the request that a line is
about.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from headrace.ops.secrets import redacted

LogFormat = Literal["auto", "text", "json"]

REPEAT_EVERY_S = 30.0


def set_up_logs(
    format: LogFormat = "auto",
    level: str = "info",
    *,
    worker: str | None = None,
    stream: TextIO | None = None,
    trace: Callable[[], str | None] | None = None,
) -> None:
    """Where the process's log lines go and how they look; call it once, at the start.

    Args:
        format: "auto" is text when the stream is a terminal. level: "debug", "info", "warning" or "error".
        worker: named in every line. stream: stderr unless given. trace: tells which request a line is about.
    """
    out = sys.stderr if stream is None else stream
    in_json = format == "json" or (format == "auto" and not out.isatty())
    structlog.contextvars.clear_contextvars()
    if worker is not None:
        structlog.contextvars.bind_contextvars(worker=worker)
    named = {"worker": worker} if worker is not None else {}

    def add_worker(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        about = None if trace is None else trace()
        traced = {} if about is None else {"trace": about}
        return {**traced, **event, **named}  # threads do not inherit the context

    before: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso" if in_json else "%H:%M:%S", utc=True),
        add_worker,
    ]
    last: list[Any] = (
        [structlog.processors.format_exc_info, hide_secrets, structlog.processors.JSONRenderer(default=str)]
        if in_json
        else [
            structlog.processors.format_exc_info,
            hide_secrets,
            structlog.dev.ConsoleRenderer(colors=out.isatty(), pad_event_to=0, sort_keys=False),
        ]
    )
    handler = _Whole(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda given: _log_uncaught(given.exc_type, given.exc_value, given.exc_traceback)


def hide_secrets(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog: no field, message or traceback leaves with a secret in it. What a reader looks for
    stands first."""
    first = {name: event[name] for name in ("timestamp", "level", "event") if name in event}
    return dict(redacted({**first, **event}))


class _Whole(logging.StreamHandler[TextIO]):
    """Writes a line at once, so that lines of several workers do not mix; a reader that is gone stops no flow."""

    terminator = ""

    def format(self, record: logging.LogRecord) -> str:
        return f"{super().format(record)}\n"

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError | ValueError):
            super().handleError(record)


def _log_uncaught(kind: Any, error: Any, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    structlog.get_logger("headrace").error("uncaught exception", exc_info=(kind, error, trace))


class Repeats:
    """Lets a line through once per `every_s` for each key, and says how many were held back.

    >>> clock = iter([0.0, 1.0, 2.0, 31.0])
    >>> repeats = Repeats(30.0, now=lambda: next(clock))
    >>> [repeats.allow("store down") for _ in range(4)]
    [0, None, None, 2]
    """

    def __init__(self, every_s: float = REPEAT_EVERY_S, *, now: Callable[[], float] = time.monotonic) -> None:
        self._every_s = every_s
        self._now = now
        self._seen: dict[str, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def allow(self, key: str) -> int | None:
        """How many lines of this key were held back since the last one, or None: hold this one back too."""
        now = self._now()
        with self._lock:
            since, held = self._seen.get(key, (None, 0))
            if since is not None and now - since < self._every_s:
                self._seen[key] = (since, held + 1)
                return None
            if len(self._seen) > 10_000:
                self._seen.clear()
            self._seen[key] = (now, 0)
            return held
