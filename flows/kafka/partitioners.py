"""Which partition a producer sends a key to: the ways of Java's client and librdkafka, as functions of the key's bytes.

Only for messages with a key. Without one every producer sends where it likes.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping

from headrace.features.kafka_history import PARTITIONERS

Partitioner = Callable[[bytes, int], int]
"""(key, number of partitions) -> partition."""

_MASK = 0xFFFFFFFF


def murmur2(key: bytes, partitions: int) -> int:
    """Java's default, and librdkafka's `murmur2` and `murmur2_random`: MurmurHash2 of the key, without its sign.

    >>> [murmur2(key, 1000) for key in (b"21", b"foobar", b"a-little-bit-long-string")]
    [340, 166, 112]
    """
    value = (0x9747B28C ^ len(key)) & _MASK
    whole = len(key) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * 0x5BD1E995 & _MASK
        word = (word ^ word >> 24) * 0x5BD1E995 & _MASK
        value = value * 0x5BD1E995 & _MASK ^ word
    if whole < len(key):
        value = (value ^ int.from_bytes(key[whole:], "little")) * 0x5BD1E995 & _MASK
    value = (value ^ value >> 13) * 0x5BD1E995 & _MASK
    return ((value ^ value >> 15) & 0x7FFFFFFF) % partitions


def crc32(key: bytes, partitions: int) -> int:
    """librdkafka's default for keys (`consistent` and `consistent_random`): CRC-32 of the key."""
    return zlib.crc32(key) % partitions


def fnv1a(key: bytes, partitions: int) -> int:
    """librdkafka's `fnv1a` and `fnv1a_random`, and Sarama's hash: FNV-1a as a signed number, without its sign."""
    value = 0x811C9DC5
    for byte in key:
        value = (value ^ byte) * 0x01000193 & _MASK
    return (value if value < 1 << 31 else (1 << 32) - value) % partitions


KNOWN: Mapping[str, Partitioner] = dict(zip(PARTITIONERS, (murmur2, crc32, fnv1a), strict=True))
"""By the names that a source gives them."""


def fitting(name: str, keyed: Iterable[tuple[bytes, int]], partitions: int) -> tuple[bytes, int, int] | None:
    """The first of these keys that a partitioner sends elsewhere than where it was found, with where it was found and
    where it would be; None: it explains all of them."""
    for key, found in keyed:
        there = KNOWN[name](key, partitions)
        if there != found:
            return key, found, there
    return None
