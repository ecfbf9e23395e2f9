"""Who may ask: API keys and bearer tokens, kept as digests and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

_BEARER = b"bearer "


class Keys:
    """The keys that are accepted. Neither the object nor its repr holds a key, only SHA-256 digests.

    >>> keys = Keys.of(["correct horse"])
    >>> keys.admit({b"x-api-key": b"correct horse"}), keys.admit({b"authorization": b"Bearer wrong"}), keys.admit({})
    (True, False, False)
    """

    __slots__ = ("_digests",)

    def __init__(self, digests: Iterable[bytes]) -> None:
        self._digests = tuple(digests)

    @classmethod
    def of(cls, keys: Iterable[str]) -> Keys:
        """From the keys themselves; empty ones are left out."""
        return cls(sorted({_digest(key.encode()) for key in keys if key}))

    def admit(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether `Authorization: Bearer KEY` or `X-API-Key: KEY` names a key.

        Takes as long for a near miss as for a far one: digests are compared, all of them, each in constant time.
        """
        given = headers.get(b"authorization")
        key = given[len(_BEARER) :].strip() if given and given[: len(_BEARER)].lower() == _BEARER else None
        if key is None:
            key = headers.get(b"x-api-key")
        if not key:
            return False
        digest = _digest(key)
        found = False
        for each in self._digests:
            found |= hmac.compare_digest(each, digest)
        return found

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"Keys({len(self)} accepted)"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
