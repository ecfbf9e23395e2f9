"""This machine: Python, the packages a live flow needs, its kernels, and the port of its metrics."""

from __future__ import annotations

import platform
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from headrace.ops.checks.finding import Finding
from headrace.ops.settings import Configuration
from headrace.version import VERSION

AREA = "machine"

# Package -> extra that brings it. The second group only makes things faster or adds what not every flow uses.
NEEDED = {"pyarrow": "flow", "duckdb": "flow", "numba": "flow", "confluent-kafka": "kafka", "structlog": "ops"}
OPTIONAL = {"hiredis": ("redis", "replies of Redis are parsed faster with it")}


def check_python() -> Iterator[Finding]:
    """Python and Headrace themselves."""
    yield Finding("ok", AREA, "headrace", f"{VERSION}, Python {platform.python_version()} on {platform.system()}")
    if sys.maxsize < 2**32:
        yield Finding("warn", AREA, "python", "is of 32 bits", "Take one of 64 bits: state is large.")


def check_packages(config: Configuration) -> Iterator[Finding]:
    """Packages that this configuration needs."""
    needed = dict(NEEDED)
    if config.online.url is not None:
        needed["redis"] = "redis"
    else:
        needed["lmdb"] = "embedded"
    if config.metrics.port is not None:
        needed["prometheus-client"] = "ops"
    if "://" in config.offline.data:
        needed["fsspec"] = "remote"
    found = {name: _version(name) for name in needed}
    missing = [name for name, its in found.items() if its is None]
    for name in missing:
        yield Finding("fail", AREA, name, "is not installed", f"pip install 'headrace[{needed[name]}]'")
    there = ", ".join(f"{name} {its}" for name, its in found.items() if its is not None)
    yield Finding("ok", AREA, "packages", there)
    for name, (extra, why) in OPTIONAL.items():
        if _version(name) is None and extra in needed.values():
            yield Finding("warn", AREA, name, f"is not installed; {why}", f"pip install 'headrace[{extra}]'")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_kernels() -> Iterator[Finding]:
    """Whether the kernels are compiled, as the first worker would otherwise do."""
    from headrace.flows.warm import is_warm

    if is_warm():
        yield Finding("ok", AREA, "kernels", "are compiled")
    else:
        yield Finding(
            "warn",
            AREA,
            "kernels",
            "are not compiled; every worker that starts meanwhile compiles them, about half a minute",
            "python -m headrace.flows.warm",
        )


def check_port(config: Configuration) -> Iterator[Finding]:
    """Whether the ports for metrics are free."""
    host, port = config.metrics.host, config.metrics.port
    if not port:
        says = "are not served: no port is given" if port is None else "take any free port"
        yield Finding("ok", AREA, "metrics", says)
        return
    taken = []
    for each in range(port, port + config.flow.workers):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, each))
            except OSError as error:
                taken.append(f"{each}: {error.strerror}")
    if taken:
        yield Finding(
            "warn",
            AREA,
            "metrics",
            f"cannot be served on {host} now ({'; '.join(taken)})",
            "The flow may be running already; else choose another with --metrics-port or [metrics] port.",
        )
    else:
        last = port + config.flow.workers - 1
        yield Finding("ok", AREA, "metrics", f"ports {port}-{last} are free" if last > port else f"port {port} is free")
