"""Dead letters: events that a flow could not take, each kept whole with the reason (contract C7, C8, C15)."""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import msgspec

from headrace.features.time import format_instant

Reason = Literal["malformed", "late", "ahead", "behind settled log", "failed"]

MALFORMED: Reason = "malformed"
"""The row could not be decoded: a field is missing or null, has another type, or the event time is no instant."""
LATE: Reason = "late"
"""The event is older than its own partition's watermark (C7)."""
AHEAD: Reason = "ahead"
"""The event is further ahead of the clock than `max_ahead` allows (C8)."""
BEHIND: Reason = "behind settled log"
"""A partition that had been silent for `idle_after` sent an event for an instant that the log has settled (C10)."""

FAILED: Reason = "failed"
"""A step of a flow could not take it: its function raised, or its sink refuses it for good."""

REASONS: tuple[Reason, ...] = (MALFORMED, LATE, AHEAD, BEHIND, FAILED)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that was not taken.

    reason: one of `REASONS`; detail: what was wrong, with the figures that decided.
    source, partition, offset: where the event stands; in Kafka `partition` is the one of the `topic`.
    event_time_us: its event time in microseconds UTC, None where it could not be read.
    payload: the event as JSON text; a line that is no JSON or CSV record is one JSON string, and what is no text
        `{"base64": "..."}`.
    topic: of Kafka, None elsewhere.
    """

    reason: Reason
    detail: str
    source: str
    partition: int
    offset: int
    event_time_us: int | None
    payload: str
    topic: str | None = None

    def record(self) -> dict[str, Any]:
        """The letter as a plain dict, one entry per field."""
        return asdict(self)

    def __str__(self) -> str:
        when = "" if self.event_time_us is None else f" at {format_instant(self.event_time_us)}"
        origin = self.source if self.topic in (None, self.source) else f"{self.source} (topic {self.topic})"
        place = f"{origin} partition {self.partition} offset {self.offset}{when}"
        return f"{place}: {self.reason}: {self.detail}: {self.payload}"


def payload_of_bytes(payload: bytes) -> str:
    """A message as a dead letter keeps it, so that it can be got back to the byte.

    JSON as it is, other UTF-8 text as a JSON string, and bytes that are no text in base64.

    >>> payload_of_bytes(b'{"a": 1}'), payload_of_bytes(b"gone"), payload_of_bytes(b"\\xff")
    ('{"a": 1}', '"gone"', '{"base64": "/w=="}')
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return json.dumps({"base64": base64.b64encode(payload).decode()})
    try:
        msgspec.json.decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return json.dumps(text)
    return text


def payload_text(event: object) -> str:
    """An event as JSON text. Never raises: what JSON cannot carry is shown as Python shows it.

    Numbers that are not finite become their names, so that the text is strict JSON.

    >>> payload_text({"fare": float("nan"), "raw": b"x\\xff"})
    '{"fare": "NaN", "raw": "x\\\\\\\\xff"}'
    """
    if isinstance(event, Mapping):
        try:
            event = {str(k): _named(v) for k, v in event.items()}
        except Exception:  # a mapping of the user's own may raise anything
            event = _shown(event)
    try:
        return json.dumps(_named(event), default=_shown, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return json.dumps(_shown(event))


def _named(value: Any) -> Any:
    if hasattr(value, "dtype") and hasattr(value, "item"):  # a NumPy scalar
        value = value.item() if value.dtype.kind in "biuf" else str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _shown(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        return str(value.isoformat()) if hasattr(value, "isoformat") else repr(value)
    except Exception:  # the repr of an object of the user's own may raise anything
        return f"<{type(value).__name__} that cannot be shown>"
