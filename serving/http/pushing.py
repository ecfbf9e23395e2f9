"""`POST /push` and `POST /write-to-online-store`: rows into the online store, raw events into a source's stream.

    {"push_source_name": "driver_activity", "df": {"driver_id": ["7"], "event_timestamp": ["..."], "rides_1h": [3]}}
    {"push_source_name": "rides", "events": [{"driver_id": "7", "fare": 12.5, "at": "..."}]}

A request is checked as a whole before anything of it is written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, Protocol, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from headrace.features.errors import did_you_mean
from headrace.features.sources import Source
from headrace.features.views import ViewDefinition, definition
from headrace.serving.http.problems import RETRY_AFTER_S, Problem, unknown, unprocessable
from headrace.serving.http.pushed_rows import pushed_rows
from headrace.serving.http.pushed_values import Writing
from headrace.serving.http.pushing_openapi import push_operations
from headrace.stores.errors import UnreachableError
from headrace.stores.online import OnlineStore

T = TypeVar("T")

_log = logging.getLogger("headrace.serving.http")

AT_ONCE = 4
"""Pushes under way; further ones wait for their turn ..."""
WAITING = 64
"""... and beyond these they are told to come back."""


class Publisher(Protocol):
    """Takes events into the stream that a source reads. Called from several threads."""

    def prepared(self, events: Sequence[Any]) -> tuple[Sequence[Any], dict[int, str]]:
        """The events as messages, and what is wrong with those that the source's own decoder would refuse, by place."""

    def publish(self, messages: Sequence[Any]) -> None:
        """Send messages, all made by `prepared`; returns when the stream has every one of them, durably.

        Raises:
            UnreachableError: not all of them were acknowledged in time; some may be in the stream.
            DataError: a message cannot be taken, such as one that is too large.
        """

    def close(self) -> None:
        """Release connections."""


class Body(msgspec.Struct):
    """What a push may say. Feast's `allow_registry_cache` and `transform_on_write` mean nothing here."""

    push_source_name: str = ""
    feature_view_name: str = ""
    df: Any = UNSET
    events: list[Any] | UnsetType = UNSET
    to: Literal["online", "offline", "online_and_offline"] = "online"
    unit: Literal["s", "ms", "us"] | UnsetType = UNSET
    zone: Literal["UTC"] | UnsetType = UNSET
    missing: Literal["refuse", "null"] = "refuse"


_body = msgspec.json.Decoder(Body).decode


class Pushing:
    """The `Pushes` of a server. Of one event loop; what blocks runs in threads of its own.

    Args:
        store: the online store, open for writing; None: this server only reads, and rows are refused.
        views: those that rows are pushed into.
        publishers: of the views' sources, by name; a source without one takes no events.
        most: rows or events of one request. now: wall clock in seconds.
    """

    def __init__(
        self,
        store: OnlineStore | None,
        views: Iterable[Any],
        publishers: Mapping[str, Publisher] | None = None,
        *,
        most: int = 10_000,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._publishers, self._most, self._now = store, dict(publishers or {}), most, now
        self._views = {each.name: each for each in map(definition, views)}
        self._sources: dict[str, Source] = {
            root.name: root for each in self._views.values() for root in each.source.roots
        }
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="push")
        self._waiting = 0

    async def push(self, body: bytes, trace: str) -> Mapping[str, Any]:
        asked = _parsed(body)
        name = asked.push_source_name
        if not name:
            raise unprocessable(
                "push_source_name: missing. Name a view for rows, a source for events.", "push_source_name"
            )
        if (asked.df is UNSET) == (asked.events is UNSET):
            raise unprocessable('Expected either "df", rows of a view, or "events", events of a source.', "df")
        if not isinstance(asked.events, UnsetType):
            return await self._in_turn(self._publish, name, asked.events)
        return await self._rows(name, "push_source_name", asked, Writing(_unit(asked), asked.zone is not UNSET))

    async def write(self, body: bytes, trace: str) -> Mapping[str, Any]:
        """What Feast's client sends for `push` and `write_to_online_store`: instants without a zone are of UTC, as
        numbers they are seconds, maps are text."""
        asked = _parsed(body)
        name = asked.feature_view_name
        if not name:
            raise unprocessable("feature_view_name: missing. Name the view.", "feature_view_name")
        if asked.df is UNSET:
            raise unprocessable("df: missing. Give rows of the view, column -> values.", "df")
        return await self._rows(name, "feature_view_name", asked, Writing(_unit(asked) or "s", True, True))

    def openapi(self) -> Mapping[str, Any]:
        return push_operations(self._views.values(), self._sources, self._publishers, self._most)

    def close(self) -> None:
        """Release connections. A push under way ends within the limits of its store or stream; nobody waits for it."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for each in self._publishers.values():
            each.close()

    async def _rows(self, name: str, field: str, asked: Body, how: Writing) -> Mapping[str, Any]:
        view = self._views.get(name)
        if view is None:
            raise self._unknown(name, field)
        if asked.to != "online":
            raise unprocessable(
                f'to: "{asked.to}": rows that are pushed go into the online store only; the offline log is its '
                f'flow\'s. Push the events themselves, {{"push_source_name": "{view.source.roots[0].name}", '
                '"events": [...]}, which the flow brings to both, or leave out "to".',
                "to",
            )
        if self._store is None:
            raise Problem(
                409,
                "This server reads an online store of this machine, which only its flow writes. Push events to source "
                f"'{view.source.roots[0].name}', or serve from Redis: --online redis://...",
                reason="malformed",
            )
        return await self._in_turn(self._write, view, asked, how)

    def _write(self, view: ViewDefinition, asked: Body, how: Writing) -> Mapping[str, Any]:
        now_us = int(self._now() * 1e6)
        rows = pushed_rows(view, asked.df, how, now_us=now_us, most=self._most, missing_is_null=asked.missing == "null")
        if not rows.num_rows:
            return {"written": 0, "older": 0}
        assert self._store is not None
        written = self._store.write(view, rows)
        return {"written": written, "older": rows.num_rows - written}

    def _publish(self, name: str, events: list[Any]) -> Mapping[str, Any]:
        source = self._source(name)
        if len(events) > self._most:
            raise Problem(
                422,
                f"events: {len(events)}; one request may push {self._most}. Push them in several.",
                field="events",
                reason="too_many_entities",
            )
        publisher = self._publishers.get(source)
        if publisher is None:
            kind = self._sources[source].kind
            why = (
                "this server has no Kafka client: pip install 'headrace[kafka]'"
                if kind == "kafka"
                else (f"it reads {'a file' if kind == 'file' else 'no topic'}")
            )
            raise unprocessable(f"Source '{source}' takes no events: {why}.", "push_source_name")
        messages, wrong = publisher.prepared(events)
        if wrong:
            place = min(wrong)
            more = f" So are {len(wrong) - 1} more." if len(wrong) > 1 else ""
            raise unprocessable(
                f"events[{place}]: {wrong[place]}.{more} Nothing of the request was sent.", f"events[{place}]"
            )
        try:
            publisher.publish(messages)
        except UnreachableError as error:
            _log.warning("Events of source '%s' were not taken: %s", source, error)
            raise Problem(
                503,
                f"Kafka did not acknowledge the events of source '{source}' in time; some of them may have been taken. "
                "Push all of them again; with dedup= in the source a repeated one changes nothing.",
                reason="unreachable",
                headers=_RETRY,
            ) from None
        return {"events": len(events)}

    def _source(self, name: str) -> str:
        if name in self._sources:
            return name
        view = self._views.get(name)
        if view is None:
            raise self._unknown(name, "push_source_name")
        names = [root.name for root in view.source.roots]
        if len(names) > 1:
            raise unprocessable(
                f"View '{name}' is computed from the events of {', '.join(names)}: name one of these.",
                "push_source_name",
            )
        return names[0]

    def _unknown(self, name: str, field: str) -> Problem:
        known = [*self._views, *(() if field == "feature_view_name" else self._sources)]
        if name in self._sources and field == "push_source_name":
            return unprocessable(
                f'\'{name}\' is a source, which takes "events"; rows ("df") go into a view: {", ".join(self._views)}.',
                field,
            )
        return unknown(
            f"{field}: nothing is named '{name}'{did_you_mean(name, known)} Views, for rows: {', '.join(self._views)}. "
            f"Sources, for events: {', '.join(self._sources)}.",
            field,
        )

    async def _in_turn(self, work: Callable[..., T], *arguments: Any) -> T:
        if self._waiting >= WAITING:
            raise Problem(
                503,
                f"{WAITING} pushes are under way or wait. Push again in {RETRY_AFTER_S} s, more rows in a request.",
                reason="unreachable",
                headers=_RETRY,
            )
        self._waiting += 1
        under_way = asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*arguments))
        under_way.add_done_callback(self._is_done)  # not with the request: a caller may leave in the midst
        try:
            return await asyncio.shield(under_way)
        except ImportError as error:  # a server that only looks up needs less
            _log.warning("A push was refused: %s. pip install 'headrace[live]' where the server runs.", error)
            raise Problem(
                409,
                "This server takes no pushes: it was installed without what they need. pip install 'headrace[live]' "
                "where it runs.",
                reason="malformed",
            ) from None

    def _is_done(self, _: object) -> None:
        self._waiting -= 1


_RETRY = ((b"retry-after", b"%d" % RETRY_AFTER_S),)


def _unit(asked: Body) -> str | None:
    return None if isinstance(asked.unit, UnsetType) else asked.unit


def _parsed(body: bytes) -> Body:
    try:
        return _body(body)
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        field = place.rstrip("`").lstrip(".") or None
        raise unprocessable(f"{f'{field}: ' if field else ''}{said}.", field) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Problem(400, f"The request's body is no JSON: {said}.", reason="malformed") from None
