"""The Redis of online rows: reachable, new enough, keeping what it is given, and with a clock like ours."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from headrace.ops.checks.finding import Finding
from headrace.stores.redis_urls import connect, redis_address

AREA = "redis"
OLDEST = (6, 2)
SKEW_S = 1.0
PROBE = "headrace:doctor"


def check_redis(url: str, timeout_s: float = 5.0) -> Iterator[Finding]:
    """The server of a URL; of a cluster one of its nodes stands for all."""
    address = redis_address(url)
    client = connect(address, timeout_s, 2)
    try:
        took = min(_ping(client) for _ in range(5))  # the first also connects
        info = _info(client)
        yield from _version(info, address.shown, took)
        yield from _memory(info)
        yield from _persistence(client, info)
        yield from _writing(client)
        yield from _clock(client)
    finally:
        client.close()


def _ping(client: Any) -> float:
    began = time.perf_counter()
    client.ping()
    return time.perf_counter() - began


def unreachable(url: str, error: Exception) -> Finding:
    """Nobody answers, or not to us."""
    shown = redis_address(url).shown
    return Finding(
        "fail",
        AREA,
        shown,
        f"cannot be reached: {error}",
        "Is the server running, is the port right, and do the user and password in the URL fit? ([online] url)",
    )


def _info(client: Any) -> Mapping[str, Any]:
    info = client.info()
    first = next(iter(info.values()), None)
    return first if isinstance(first, dict) and "redis_version" in first else info


def _version(info: Mapping[str, Any], shown: str, took: float) -> Iterator[Finding]:
    text = str(info.get("redis_version", "?"))
    parts = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    says = f"Redis {text} answers in {took * 1000:.1f} ms"
    if parts < OLDEST:
        yield Finding("fail", AREA, shown, says, f"Headrace needs Redis {OLDEST[0]}.{OLDEST[1]} or newer, or Valkey.")
    elif took > 0.02:
        yield Finding("warn", AREA, shown, says, "A round trip is part of every event's freshness: put them closer.")
    else:
        yield Finding("ok", AREA, shown, says)


def _memory(info: Mapping[str, Any]) -> Iterator[Finding]:
    policy, most = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    used = int(info.get("used_memory", 0))
    says = f"uses {_gib(used)}" + (f" of {_gib(most)}" if most else ", no maxmemory") + f"; {policy}"
    if policy != "noeviction":
        yield Finding(
            "warn",
            AREA,
            "memory",
            says,
            "Rows that Redis evicts read as entities never seen. Set maxmemory-policy noeviction: a flow waits while a "
            "full Redis refuses, and loses nothing.",
        )
    elif most and used > 0.8 * most:
        yield Finding("warn", AREA, "memory", says, "Nearly full: raise maxmemory, or give views a ttl.")
    else:
        yield Finding("ok", AREA, "memory", says)


def _gib(count: int) -> str:
    return f"{count / 2**30:,.2f} GiB"


def _persistence(client: Any, info: Mapping[str, Any]) -> Iterator[Finding]:
    appending = bool(info.get("aof_enabled", 0))
    saves = _setting(client, "save")
    if appending:
        yield Finding("ok", AREA, "persistence", "append-only file: a restart finds the rows")
    elif saves is None:
        yield Finding("ok", AREA, "persistence", "no append-only file; whether snapshots are saved is not shown to us")
    elif saves:
        yield Finding("ok", AREA, "persistence", f"snapshots ({saves}); after a restart flows write newer rows anew")
    else:
        yield Finding(
            "warn",
            AREA,
            "persistence",
            "none: a restart loses every row, and entities read as never seen until the flow has written them anew",
            "Set appendonly yes, or run a replica.",
        )


def _setting(client: Any, name: str) -> str | None:
    """A setting of the server; None where the user may not ask, as with most hosted ones."""
    from redis.exceptions import RedisError

    try:
        found = client.config_get(name)
    except RedisError:
        return None
    values = {key.decode() if isinstance(key, bytes) else str(key): value for key, value in found.items()}
    value = values.get(name)
    return value.decode() if isinstance(value, bytes) else value


def _writing(client: Any) -> Iterator[Finding]:
    from redis.exceptions import RedisError

    try:
        client.set(PROBE, b"1", px=5_000)
        client.eval("return redis.call('DEL', KEYS[1])", 1, PROBE)
    except RedisError as error:
        yield Finding(
            "fail",
            AREA,
            "rights",
            f"writing or scripts are refused: {error}",
            "Let the user of the URL write keys and run scripts: ACL SETUSER name +@all ~*",
        )
    else:
        yield Finding("ok", AREA, "rights", "keys can be written, scripts run")


def _clock(client: Any) -> Iterator[Finding]:
    began = time.time()
    answer = client.time()
    ended = time.time()
    seconds, micros = answer if isinstance(answer, tuple) else next(iter(answer.values()))
    skew = seconds + micros / 1e6 - (began + ended) / 2
    says = f"the server's clock is {abs(skew) * 1000:,.0f} ms {'ahead of' if skew > 0 else 'behind'} ours"
    if abs(skew) > SKEW_S + (ended - began):
        yield Finding("warn", AREA, "clock", says, "Keep both by NTP: expiry of keys is by the server's clock.")
    else:
        yield Finding("ok", AREA, "clock", says)
