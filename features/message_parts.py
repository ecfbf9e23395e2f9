"""The parts of a Kafka message that a column may be read from, besides the fields of its payload.

columns={"driver_id": MessageKey(), "trace": MessageHeader("trace-id"), "at": MessageTime()}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headrace.features.errors import DefinitionError
from headrace.features.sources import one_of

KEY_ENCODINGS = ("text", "int", "json")


@dataclass(frozen=True, repr=False)
class MessageKey:
    """A column read from the message's key: `columns={"driver_id": MessageKey()}`.

    Attributes:
        encoding: "text": UTF-8, numbers as their digits (a `bytes` column takes the key as it is); "int": 4 or 8 bytes,
            the most significant first, as Kafka's own serializers write numbers; "json": a JSON value.
        field: of a JSON object the field; None for the whole key.
    """

    encoding: str = "text"
    field: str | None = None

    def __repr__(self) -> str:
        given = [repr(self.encoding)] if self.encoding != "text" else []
        return f"MessageKey({', '.join([*given, *([repr(self.field)] if self.field is not None else [])])})"

    def __post_init__(self) -> None:
        one_of("encoding", self.encoding, KEY_ENCODINGS, "MessageKey")
        if self.field is not None and self.encoding != "json":
            raise DefinitionError(
                f"MessageKey(field={self.field!r}) is for a key that is a JSON object: add encoding='json'."
            )


@dataclass(frozen=True, repr=False)
class MessageHeader:
    """A column read from the message's last header of that name, as text (a `bytes` column takes it as it is).

    A message without the header has a null there.
    """

    name: str

    def __repr__(self) -> str:
        return f"MessageHeader({self.name!r})"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise DefinitionError(
                f"MessageHeader: the name must be text, got {self.name!r}, as in MessageHeader('id')."
            )


@dataclass(frozen=True)
class MessageTime:
    """An instant column read from the record's timestamp (milliseconds), set by the producer or by the broker."""


@dataclass(frozen=True)
class MessageBody:
    """A column that takes the payload as it is: the one of `format="raw"`, in a `bytes` or a `str` column (UTF-8)."""


Part: TypeAlias = "MessageKey | MessageHeader | MessageTime | MessageBody"
