"""MurmurHash3 of 32 bits (Austin Appleby, public domain), by which Feast names the fields of its hashes in Redis."""

from __future__ import annotations

_MASK = 0xFFFFFFFF


def murmur3_32(data: bytes, seed: int = 0) -> int:
    """The hash of `data`, 0 <= h < 2^32.

    >>> hex(murmur3_32(b"hello")), murmur3_32(b"")
    ('0x248bfa47', 0)
    """
    h = seed
    whole = len(data) - len(data) % 4
    for start in range(0, whole, 4):
        h ^= _scrambled(int.from_bytes(data[start : start + 4], "little"))
        h = (_rotated(h, 13) * 5 + 0xE6546B64) & _MASK
    if whole < len(data):
        h ^= _scrambled(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _MASK
    return h ^ (h >> 16)


def _scrambled(block: int) -> int:
    return (_rotated((block * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _rotated(value: int, by: int) -> int:
    return ((value << by) | (value >> (32 - by))) & _MASK
