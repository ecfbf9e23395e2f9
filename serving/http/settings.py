"""What the lookup server accepts and how it answers by default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import InitVar, dataclass, field
from typing import Literal

from headrace.features.errors import DataError
from headrace.serving.http.keys import Keys

Statuses = Literal["honest", "feast"]


@dataclass(frozen=True)
class ServerSettings:
    """Settings of `lookup_app`.

    Args:
        keys: the API keys and bearer tokens that are accepted, as texts; none: everybody may ask. Only their digests
            are kept, in `accepted`.

    Attributes:
        body_bytes: the most that a request's body may have.
        entities: the most entities of one lookup. features: the most features of one.
        values: the most entities times features; a million hold a worker for some tenths of a second.
        statuses: "honest" tells a value that was never there from one that is null; "feast" says PRESENT of all, as
            Feast does. A request may ask for the other.
        timeout_s: seconds for a request, from its head to its answer.

    Raises:
        DataError: a limit of 0 or less, or statuses of another name.
    """

    body_bytes: int = 1 << 20
    entities: int = 10_000
    features: int = 2_000
    statuses: Statuses = "honest"
    keys: InitVar[Iterable[str]] = ()
    timeout_s: float = 5.0
    values: int = 1_000_000
    accepted: Keys | None = field(init=False, default=None)

    def __post_init__(self, keys: Iterable[str]) -> None:
        for name in ("body_bytes", "entities", "features", "values", "timeout_s"):
            if not getattr(self, name) > 0:
                raise DataError(f"ServerSettings: {name} is {getattr(self, name)}, expected more than 0.")
        if self.statuses not in ("honest", "feast"):
            raise DataError(f"ServerSettings: statuses is {self.statuses!r}, expected 'honest' or 'feast'.")
        known = Keys.of(keys)
        object.__setattr__(self, "accepted", known if known else None)
