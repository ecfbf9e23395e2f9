"""The lookup server's settings: packages, keys, certificate, port."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from importlib.util import find_spec

from headrace.ops.checks.finding import Finding
from headrace.ops.errors import ConfigurationError
from headrace.ops.server_address import bound, shown
from headrace.ops.server_keys import accepted_keys, check_reach, check_tls
from headrace.ops.settings import Configuration, ServeSection

AREA = "server"
NEEDED = ("uvicorn", "httptools", "uvloop")
SOON_S = 14 * 86_400


def check_server(config: Configuration) -> Iterator[Finding]:
    """What `headrace serve` would say, and more, without serving."""
    settings = config.serve
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        says = f"{', '.join(missing)} not installed: headrace serve does not start"
        if settings == ServeSection():
            yield Finding("ok", AREA, "packages", f"{says}; flows need none of it")
            return
        yield Finding("fail", AREA, "packages", says, "pip install 'headrace[serve]'")
    yield from _keys(settings)
    yield from _tls(settings)
    yield from _port(settings)
    if settings.cache is not None and settings.cache.value > 60:
        yield Finding(
            "warn",
            AREA,
            "cache",
            f"rows may be {settings.cache.value:g} s old when they are served",
            "A fresh event shows only then: a shorter [serve] cache, or none.",
        )


def _keys(settings: ServeSection) -> Iterator[Finding]:
    try:
        keys = accepted_keys(settings)
        doubt = check_reach(settings, keys)
    except ConfigurationError as error:
        yield Finding("fail", AREA, "keys", str(error))
        return
    if doubt is not None:
        yield Finding("warn", AREA, "keys", f"{len(keys)}; {doubt.says}", doubt.mend)
    else:
        yield Finding("ok", AREA, "keys", f"{len(keys)}, at {settings.host}")


def _tls(settings: ServeSection) -> Iterator[Finding]:
    try:
        if not check_tls(settings):
            return
    except ConfigurationError as error:
        yield Finding("fail", AREA, "tls", str(error))
        return
    left = _seconds_left(str(settings.tls_cert))
    if left is None:
        yield Finding("ok", AREA, "tls", f"{settings.tls_cert} and its key fit")
    elif left < 0:
        yield Finding("fail", AREA, "tls", f"{settings.tls_cert} has expired", "Have it issued anew, and restart.")
    elif left < SOON_S:
        says = f"{settings.tls_cert} expires in {left / 86_400:.0f} days"
        yield Finding("warn", AREA, "tls", says, "Have it issued anew, and restart: it is read at the start.")
    else:
        yield Finding("ok", AREA, "tls", f"{settings.tls_cert} is good for {left / 86_400:.0f} days")


def _seconds_left(cert: str) -> float | None:
    """Until the certificate of a file expires; None where that cannot be told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cert)
    except ssl.SSLError:
        return None
    ends = [str(each["notAfter"]) for each in context.get_ca_certs() if "notAfter" in each]
    return min(ssl.cert_time_to_seconds(each) for each in ends) - time.time() if ends else None


def _port(settings: ServeSection) -> Iterator[Finding]:
    url = shown(settings.host, settings.port, settings.tls_cert is not None)
    try:
        bound(settings.host, settings.port).close()
    except ConfigurationError as error:
        yield Finding("warn", AREA, "port", str(error), "The server may be running already; else choose another.")
    else:
        yield Finding("ok", AREA, "port", f"{url} is free" if settings.port else "any free one")
