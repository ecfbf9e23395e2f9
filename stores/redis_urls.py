"""Redis servers by URL: one server, a cluster, or whatever Sentinel says is the master now.

    redis://[user:password@]host[:port][/db]                          rediss:// with TLS
    unix://[user:password@]/path/to/socket[?db=0]
    redis+cluster://[user:password@]host:port[,host:port...]          rediss+cluster:// with TLS
    redis+sentinel://[user:password@]host:port[,...]/service[/db]     rediss+sentinel:// with TLS

Options of redis-py's connections go behind a question mark: `?ssl_ca_certs=/path/ca.pem&ssl_certfile=...`; for Sentinel
also `sentinel_username=` and `sentinel_password=`, where the sentinels ask for others than the servers do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from headrace.stores.errors import StoreError, UnreachableError

Kind = Literal["server", "cluster", "sentinel"]

_KINDS: dict[str, Kind] = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
}
SCHEMES = tuple(_KINDS)

_FORMS = (
    "redis://host:6379/0, rediss://user:password@host:6379/0, unix:///path/to/socket, redis+cluster://host:7000,"
    "host:7001 or redis+sentinel://host:26379,host:26379/service/0"
)
_PASSING = ("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN")
"""How replies begin that say a server cannot write just now."""


@dataclass(frozen=True)
class RedisAddress:
    """A URL taken apart.

    Attributes:
        kind: what is there.
        shown: the address without user, password and options, for messages.
        hosts: host and port of the servers or sentinels named; empty for a socket.
        service: the name that sentinels know the master by.
        plain: a URL of the first host that redis-py understands, with everything secret in it.
        sentinel: options of the sentinels' own connections.
    """

    kind: Kind
    shown: str
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    plain: str = field(default="", repr=False)
    sentinel: dict[str, str] = field(default_factory=dict, repr=False)


def redis_address(url: str) -> RedisAddress:
    """The parts of a URL.

    Raises:
        StoreError: it is none of the forms above; the URL's user and password are never in the message.

    >>> redis_address("redis+sentinel://:secret@a:26379,b/features/3")
    RedisAddress(kind='sentinel', shown='redis+sentinel://a:26379,b:26379/features/3', hosts=(('a', 26379),
        ('b', 26379)), service='features')
    """
    scheme, _, rest = url.partition("://")
    kind = _KINDS.get(scheme)
    if kind is None or not rest:
        # Only what is surely a scheme is shown: an address without one may begin with a password.
        got = f"begins with '{scheme}://'" if rest and scheme.isalpha() else "has no known scheme"
        raise StoreError(f"The address of a Redis server {got}. Expected one of: {_FORMS}.")
    tls = scheme.startswith("rediss")
    parts = urlsplit("redis://" + rest)
    if scheme == "unix":
        return RedisAddress("server", f"unix://{parts.path}", plain=url)
    user, _, hosts_text = parts.netloc.rpartition("@")
    default = 26379 if kind == "sentinel" else 6379
    hosts = tuple(_host(each, default) for each in hosts_text.split(","))
    path = [unquote(each) for each in parts.path.split("/")[1:] if each]
    service = ""
    if kind == "sentinel":
        if not path:
            raise StoreError(
                "The address of Redis behind Sentinel lacks the name of the service. Expected "
                "redis+sentinel://host:26379/service/0."
            )
        service, *path = path
    if len(path) > 1 or (path and not path[0].isdecimal()) or (kind == "server" and len(hosts) > 1):
        raise StoreError(f"The address of a Redis server is of an unknown form. Expected one of: {_FORMS}.")
    if kind == "cluster" and path and path != ["0"]:
        raise StoreError(f"A Redis cluster has the database 0 only, got {path[0]}. Leave it out of the address.")
    options = dict(parse_qsl(parts.query))
    sentinel = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in options
    }
    first = f"{user}@" if user else ""
    plain = f"redis{'s' if tls else ''}://{first}{_shown(hosts[0])}/{path[0] if path else ''}"
    shown_hosts = ",".join(map(_shown, hosts))
    shown = "/".join([f"{scheme}://{shown_hosts}", *([service] if service else []), *path])
    return RedisAddress(kind, shown, hosts, service, plain + (f"?{urlencode(options)}" if options else ""), sentinel)


def _host(text: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit("//" + text)
        return parts.hostname or "localhost", parts.port or default
    except ValueError:  # its words show the text, which may be part of a password
        raise StoreError(
            "The address of a Redis server has a host of an unknown form; a '/', '@', ':' or '?' within a password is "
            f"written %2F, %40, %3A, %3F. Expected one of: {_FORMS}."
        ) from None


def _shown(host: tuple[str, int]) -> str:
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def connect(address: RedisAddress, timeout_s: float, connections: int, *, tasks: bool = False) -> Any:
    """A client of redis-py with a pool of its own; nothing is sent yet, except to a cluster.

    Args:
        timeout_s: for connecting, and for each answer. connections: the most at a time; a thread that needs one more
            waits for as long as for an answer. tasks: the client of asyncio, which nothing is sent by yet in any case.

    Raises:
        StoreError: the package redis is missing, or the URL has an option that redis-py does not know.
        UnreachableError: no server of a cluster answers.
    """
    library, Retry, NoBackoff = _library(tasks)
    # A call that failed is made again by whoever knows whether it may be: see UnreachableError.
    common: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
    }
    if address.hosts:
        common["socket_keepalive"] = True
    with speaking_to(address):
        try:
            if address.kind == "server":
                pool = library.BlockingConnectionPool.from_url(
                    address.plain, max_connections=connections, timeout=timeout_s, **common
                )
                pool.connection_class(**pool.connection_kwargs)  # finds options that it does not know
                return library.Redis(connection_pool=pool)
            given: dict[str, Any] = dict(library.connection.parse_url(address.plain))
        except (ValueError, TypeError) as error:
            raise StoreError(f"{address.shown}: an option of the address has a wrong value: {error}.") from None
        for name in ("host", "port"):
            given.pop(name, None)
        given["ssl"] = "SSL" in given.pop("connection_class", type).__name__
        if address.kind == "cluster":
            given.pop("db", None)
            nodes = [library.cluster.ClusterNode(host, port) for host, port in address.hosts]
            return library.RedisCluster(
                startup_nodes=nodes, max_connections=connections, **{**common, **given, "retry": Retry(NoBackoff(), 3)}
            )
        mine = {name: value for name, value in given.items() if name.startswith("ssl")}
        who = {name: value for name, value in given.items() if name in ("username", "password")}
        sentinels = library.Sentinel(
            list(address.hosts), sentinel_kwargs={**common, **mine, **who, **address.sentinel}, **{**common, **given}
        )
        return sentinels.master_for(address.service, max_connections=connections)


def _library(tasks: bool) -> tuple[Any, Any, Any]:
    """redis-py for threads or for asyncio, and its classes for trying again."""
    try:
        from redis.backoff import NoBackoff

        if tasks:
            import redis.asyncio
            import redis.asyncio.cluster
            import redis.asyncio.connection
            from redis.asyncio.retry import Retry as Again

            return redis.asyncio, Again, NoBackoff
        import redis
        import redis.cluster
        import redis.connection
        from redis.retry import Retry
    except ImportError as error:
        raise StoreError("The Redis store needs the package redis: pip install 'headrace[redis]'.") from error
    return redis, Retry, NoBackoff


def has_hiredis() -> bool:
    """Whether answers of Redis can be parsed in C."""
    try:
        import hiredis  # noqa: F401
    except ImportError:
        return False
    return True


@contextmanager
def speaking_to(address: RedisAddress) -> Iterator[None]:
    """Turns redis-py's errors into ours.

    Raises:
        UnreachableError: no connection, no answer in time, or a server that cannot write just now.
        StoreError: anything else: a wrong password, a missing permission, a key of another type.
    """
    from redis import exceptions

    try:
        yield
    except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
        raise StoreError(
            f"Redis at {address.shown} does not let us in: {error}. Check user and password of its URL, and what the "
            "user may do."
        ) from None
    except exceptions.NoPermissionError as error:
        raise StoreError(
            f"Redis at {address.shown} refuses a command: {error}. Headrace needs the keys of its project, and @read "
            "@write @scripting @transaction @connection and the command time."
        ) from None
    except (exceptions.ConnectionError, exceptions.TimeoutError, OSError) as error:
        raise UnreachableError(f"Redis at {address.shown} does not answer: {error}.") from error
    except exceptions.ResponseError as error:
        if isinstance(error, _passing_errors(exceptions)) or str(error).startswith(_PASSING):
            raise UnreachableError(f"Redis at {address.shown} cannot do it just now: {error}.") from error
        raise StoreError(f"Redis at {address.shown} answered: {error}.") from error
    except (exceptions.RedisError, exceptions.RedisClusterException) as error:
        if isinstance(error, _passing_errors(exceptions)):
            raise UnreachableError(f"Redis at {address.shown} cannot be used just now: {error}.") from error
        raise StoreError(f"Redis at {address.shown}: {error}.") from error


def _passing_errors(exceptions: Any) -> tuple[type[Exception], ...]:
    names = (
        "BusyLoadingError",
        "ClusterDownError",
        "ClusterError",
        "MasterDownError",
        "OutOfMemoryError",
        "ReadOnlyError",
        "RedisClusterException",
        "SlotNotCoveredError",
        "TryAgainError",
    )
    return tuple(getattr(exceptions, name) for name in names)
