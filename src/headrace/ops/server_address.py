"""Where the lookup server listens: one port that its worker processes share, and who could reach it."""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import socket
import struct
import sys

from headrace.ops.errors import ConfigurationError

BACKLOG = 2048
# A filter as of socket(7), its instructions as of linux/bpf_common.h: read the flags of the TCP header; is this a first
# packet? Then nothing of it goes on, else all.
_FLAGS, _SYN, SO_ATTACH_FILTER = 13, 0x02, 26
_FILTER = [(0x30, 0, 0, _FLAGS), (0x45, 0, 1, _SYN), (0x06, 0, 0, 0), (0x06, 0, 0, 0xFFFFFFFF)]


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


def let_nobody_in(where: socket.socket) -> None:
    """Who connects from now on finds nobody, and tries again after a second, when another socket or none listens at the
    address; who had connected before can be accepted still. Where the system cannot do so, nothing happens.

    A socket that is just closed resets those who connected after the last look at it, and their requests are lost.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _FILTER))
    with contextlib.suppress(OSError):
        where.setsockopt(
            socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", len(_FILTER), ctypes.addressof(program))
        )


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
