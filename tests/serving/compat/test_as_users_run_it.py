"""Feast's client and `headrace serve` as both are deployed: workers, TLS with a certificate of one's own, a token."""

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.servers.fixtures import RedisAddress
from tests.serving.compat import views
from tests.serving.compat.feast_side import asked, registered, remote
from tests.serving.compat.views import PLAIN, VIEWS, Pairs
from tests.serving.live.process import LookupServer
from tests.stores.redis_topologies import certificate

from headrace.stores.layout import row_layout
from headrace.stores.online import StoredRow
from headrace.stores.redis import RedisStore
from headrace.stores.rows import table_of

KEY = "a-key-of-more-than-sixteen-signs"


class TlsServer(LookupServer):
    """Ready when it speaks TLS with that certificate."""

    cert: Path

    @property
    def ready(self) -> bool:
        try:
            with self.connected() as wire:
                wire.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return wire.recv(1 << 16).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def connected(self) -> ssl.SSLSocket:
        """A connection on which nothing was said yet."""
        context = ssl.create_default_context(cafile=str(self.cert))
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        try:
            return context.wrap_socket(plain, server_hostname="localhost")
        except BaseException:
            plain.close()
            raise


@pytest.fixture
def server(redis_server: RedisAddress, tmp_path: Path) -> Iterator[TlsServer]:
    cert, key = certificate(tmp_path)
    now = time.time_ns() // 1000
    with RedisStore(redis_server.url) as store:
        pair = StoredRow({"visits": 5, "paid": True}, now, now)
        store.write(Pairs, table_of(row_layout(Pairs), [{"user": "a", "shop": 1}], [pair]))
    settings = {"api_keys": f"an-older-key-for-everybody {KEY}", "tls_cert": str(cert), "tls_key": str(key)}
    made = TlsServer(tmp_path / "serve", redis_server.url, workers=2, settings=settings, views=Path(views.__file__))
    made.cert = cert
    made.start()
    yield made
    made.stop()


def test_feasts_client_over_tls_with_a_token(
    server: TlsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKUP_KEY", KEY)
    registry, url = registered(tmp_path, VIEWS, [PLAIN]), f"https://localhost:{server.port}"
    auth = {"type": "oidc", "token_env_var": "LOOKUP_KEY"}
    with remote(registry, url, auth, cert=str(server.cert)) as store:
        found = asked(store, ["pairs:visits", "pairs:paid"], [{"user": "a", "shop": 1}, {"user": "a", "shop": 2}])
    assert (found["visits"].values, found["visits"].statuses) == ([5, 0], ["PRESENT", "NOT_FOUND"])
    assert (found["paid"].values, found["paid"].statuses) == ([True, False], ["PRESENT", "NOT_FOUND"])
    refused = pytest.raises(RuntimeError, match="Failed to get online features: 401")
    with remote(registry, url, cert=str(server.cert)) as store, refused:
        asked(store, ["pairs:visits"], [{"user": "a", "shop": 1}])
    and_a_kept_connection_does_not_hold_up_the_end(server)


def and_a_kept_connection_does_not_hold_up_the_end(server: TlsServer) -> None:
    """TLS waits for the other side's goodbye, half a minute in uvloop: what `stop_within` is meant for is an answer."""
    with server.connected() as wire:
        wire.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert wire.recv(1 << 16).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 20
