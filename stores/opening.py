"""An online store by its address, as a command line or a configuration gives it."""

from __future__ import annotations

import re
from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal, TypeAlias

from headrace.stores.embedded import EmbeddedStore
from headrace.stores.errors import StoreError
from headrace.stores.redis import RedisStore
from headrace.stores.redis_urls import SCHEMES

if TYPE_CHECKING:
    from headrace.stores.online import PositionedStore

Layout: TypeAlias = Literal["feast", "packed"]

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def open_online(
    place: str | PathLike[str],
    *,
    project: str = "headrace",
    layout: Layout = "feast",
    read_only: bool = False,
    expire: bool = True,
    durable: bool = True,
) -> PositionedStore:
    """The online store at `place`; the scheme decides which kind.

    Args:
        place: a folder (embedded store), or the URL of a Redis server.
        project: whose features, on a server that several projects share. A folder holds one project.
        layout: how rows are laid out in Redis (docs/online-stores.md).
        read_only: for readers: the place must be there and nothing is written to it.
        expire: whether rows in Redis go once every view's ttl has passed. False for a replay, whose instants are past.
        durable: of a folder: flush every batch to the disk.

    Raises:
        StoreError: the scheme is not known, or the package of the store is not installed.
        MissingStoreError: a folder to be read that is not there.
        UnreachableError: no server of a Redis cluster answers; any other server is first asked by a call.
    """
    address = fspath(place)
    scheme = _SCHEME.match(address)
    if scheme is None:
        return EmbeddedStore(address, read_only=read_only, durable=durable)
    if scheme.group(1) in SCHEMES:
        return RedisStore(address, project=project, layout=layout, expire=expire)
    raise StoreError(
        f"No online store is known for addresses like {scheme.group(0)}... Give a folder, or one of: "
        f"{', '.join(each + '://' for each in SCHEMES)}."
    )
