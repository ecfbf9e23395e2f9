"""Where the lookup server listens: one port that its worker processes share, and who could reach it."""

from __future__ import annotations

import ipaddress
import socket

from headrace.ops.errors import ConfigurationError

BACKLOG = 2048


def bound(host: str, port: int) -> socket.socket:
    """A socket at the address that does not listen: it keeps the port for the workers, which listen beside it.

    Args:
        port: 0: any free one.

    Raises:
        ConfigurationError: the address is none of this machine's, or something else listens there.
    """
    family, address = _address(host, port)
    # Without SO_REUSEPORT first: two servers that shared a port by mistake would each answer half of the requests.
    with socket.socket(family, socket.SOCK_STREAM) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(alone, address, host, port)
        port = int(alone.getsockname()[1])
    return _shared(family, (address[0], port, *address[2:]), host, port)


def listening(host: str, port: int) -> socket.socket:
    """A worker's socket at an address that `bound` keeps. The system spreads connections over those of all workers."""
    family, address = _address(host, port)
    found = _shared(family, address, host, port)
    found.listen(BACKLOG)
    found.setblocking(False)
    return found


def _shared(family: int, address: tuple[object, ...], host: str, port: int) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        _bind(found, address, host, port)
    except ConfigurationError:
        found.close()
        raise
    return found


def _bind(which: socket.socket, address: tuple[object, ...], host: str, port: int) -> None:
    try:
        which.bind(address)
    except OSError as error:
        raise ConfigurationError(
            f"The server cannot listen on {host}:{port}: {error.strerror}. Choose another port with --port or [serve] "
            "port; 0 is any free one."
        ) from error


def _address(host: str, port: int) -> tuple[int, tuple[object, ...]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"[serve] host: '{host}' is no address of this machine: {error.strerror}.") from error
    return found[0][0], found[0][4]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    return ipaddress.ip_address(str(_address(host, 0)[1][0])).is_loopback


def shown(host: str, port: int, tls: bool) -> str:
    """The server's URL.

    >>> shown("::1", 6566, False)
    'http://[::1]:6566'
    """
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
