"""HTTP POST of rows as JSON, with an id by which a receiver knows a repetition."""

import contextlib
import hashlib
import http.client
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from headrace.features.errors import DefinitionError, PoisonError
from headrace.features.sinks import WebhookSink
from headrace.flows.kafka.secrets import expand
from headrace.flows.sinks.delivery import RetryError
from headrace.flows.sinks.protocol import SinkPlace, SinkRows
from headrace.flows.sinks.records import encode, records

REFUSED = (400, 413, 422)
"""Answers that speak of the rows. All others that are no success speak of the address or the server: tried again."""
SHOWN = 200
"""Bytes of an answer that are shown."""


class WebhookTarget:
    """Posts to the address of a WebhookSink, over one connection that is kept."""

    def __init__(self, sink: WebhookSink, at: SinkPlace) -> None:
        self._sink, self._at = sink, at
        url = urlsplit(expand(sink.url, "url"))
        if url.scheme not in ("http", "https") or not url.hostname:
            raise DefinitionError(
                f"WebhookSink '{sink.name}': url= is no http:// or https:// address, once its variables are read."
            )
        self._host, self._port, self._tls = url.hostname, url.port, url.scheme == "https"
        self._path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        self._headers = {name: str(expand(value, f"headers {name}")) for name, value in sink.headers.items()}
        # The path may be the secret, as of Slack's hooks: only the host is shown.
        self.shown, self.batch = f"web hook at {url.scheme}://{url.hostname}", sink.batch
        self._connection: http.client.HTTPConnection | None = None

    def open(self, state: bytes | None) -> None:
        """Connects with the first row."""

    def send(self, rows: SinkRows) -> Mapping[int, str]:
        ids = self._at.ids(rows)
        made = records(rows.table)
        if self._sink.ids is not None:
            for record, each in zip(made, ids, strict=True):
                record[self._sink.ids] = each
        body = encode(made[0] if self._sink.batch == 1 else made)
        key = ids[0] if self._sink.batch == 1 else hashlib.blake2b("\n".join(ids).encode(), digest_size=16).hexdigest()
        status, answered, after_s = self._post(body, key)
        if 200 <= status < 300:
            return {}
        text = f"it answered {status}" + (f": {answered}" if answered else "")
        if status in REFUSED:
            raise PoisonError(f"{self.shown} refuses it: {text}")
        raise RetryError(text, after_s)

    def flushed(self) -> bytes:
        return b""

    def committed(self) -> None:
        """Rows are there already."""

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _post(self, body: bytes, key: str) -> tuple[int, str, float | None]:
        """Status, the beginning of the answer, and the seconds it asks to wait."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, **self._headers}
        try:
            connection = self._connected()
            connection.request("POST", self._path, body, headers)
            answer = connection.getresponse()
            text = answer.read(SHOWN).decode("utf-8", "replace")
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise RetryError(self._without_secrets(f"{type(error).__name__}: {error}")) from error
        if answer.will_close:
            self._drop()
        after: float | None = None
        with contextlib.suppress(ValueError):  # an HTTP date: the usual pause does
            after = float(answer.getheader("Retry-After", ""))
        return answer.status, self._without_secrets(text), after

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is None:
            timeout = self._sink.timeout_us / 1e6
            self._connection = (
                http.client.HTTPSConnection(
                    self._host, self._port, timeout=timeout, context=ssl.create_default_context()
                )
                if self._tls
                else http.client.HTTPConnection(self._host, self._port, timeout=timeout)
            )
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _without_secrets(self, text: Any) -> str:
        """An answer or an error may repeat what was sent."""
        for value in (*self._headers.values(), self._path):
            for each in {value, value.rpartition(" ")[2]}:
                if len(each) > 3:
                    text = text.replace(each, "•••")
        return str(text)
