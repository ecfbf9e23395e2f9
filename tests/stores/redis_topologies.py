"""Redis in other shapes than one plain server: with TLS, as a cluster, behind Sentinel. Processes private to a test."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from tests.servers.process import ServerProcess, free_port, listening
from tests.servers.redis import RedisServer

SLOTS = 16384


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    made, key = folder / "server.pem", folder / "server.key"
    openssl = shutil.which("openssl")
    assert openssl is not None, "the test needs the program openssl"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(made)],
        check=True, capture_output=True,
    )  # fmt: skip
    return made, key


def with_tls(new_redis: Callable[..., RedisServer], folder: Path, *options: str) -> tuple[int, Path]:
    """A server that also listens with TLS; its port there, and the certificate that clients trust."""
    made, key = certificate(folder)
    port = free_port()
    new_redis(
        options=("--tls-port", str(port), "--tls-cert-file", str(made), "--tls-key-file", str(key),
                 "--tls-ca-cert-file", str(made), "--tls-auth-clients", "no", *options)
    )  # fmt: skip
    return port, made


def until(done: Callable[[], Any], timeout_s: float = 20) -> None:
    """Wait until `done()` is true; a server that does not answer yet is not done."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if done():
                return
        except redis.RedisError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"not done within {timeout_s} s")


def cluster(new_redis: Callable[..., RedisServer], size: int = 3) -> list[RedisServer]:
    """Servers that share the slots of one cluster."""
    buses = [free_port() for _ in range(size)]  # by default the port plus 10,000, which may be none
    servers = [
        new_redis(options=("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(bus)))
        for bus in buses
    ]
    for at, server in enumerate(servers):
        with redis.Redis(port=server.port) as client:
            first, last = SLOTS * at // size, SLOTS * (at + 1) // size - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", at + 1)
            if at:
                client.execute_command("CLUSTER MEET", "127.0.0.1", servers[0].port, buses[0])

    def whole() -> bool:
        for server in servers:
            with redis.Redis(port=server.port) as client:
                told = client.execute_command("CLUSTER INFO")
                if told["cluster_state"] != "ok" or told["cluster_known_nodes"] != str(size):
                    return False
        return True

    until(whole)
    return servers


class Sentinel(ServerProcess):
    """A sentinel that watches one master under the name "features"."""

    def __init__(self, folder: Path, master: int) -> None:
        super().__init__("redis-sentinel", folder)
        self.port = free_port()
        self.master = master

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = self.folder / "sentinel.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor features 127.0.0.1 {self.master} 1\n"
            "sentinel down-after-milliseconds features 500\nsentinel failover-timeout features 2000\n"
        )
        program = shutil.which("redis-server")
        assert program is not None
        self.launch([program, str(settings), "--sentinel"], lambda: listening(self.port), 20)
