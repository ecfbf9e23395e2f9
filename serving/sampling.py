"""Which entities are among a sample: always or never, in every process and language."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any


def sampled(entity: Mapping[str, Any], share: float) -> bool:
    """Whether an entity is among a share of all: BLAKE2b with a digest of 8 bytes, read as a big-endian integer, over
    2^64, is below the share. What is hashed is UTF-8 text: `name=value` of each key column, in the order of their
    names, joined by U+001F; integers in decimal digits, bytes in lowercase hexadecimal ones.

    >>> [sampled({"driver_id": str(number)}, 0.25) for number in range(6)]
    [False, False, True, False, False, True]
    """
    parts = []
    for name in sorted(entity):
        value = entity[name]
        parts.append(f"{name}={value.hex() if isinstance(value, bytes) else value}")
    digest = hashlib.blake2b("\x1f".join(parts).encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64
