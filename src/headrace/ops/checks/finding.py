"""One thing looked at: well, doubtful or wrong, and what to mend."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from headrace.features.errors import HeadraceError
from headrace.ops.secrets import redact

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        area: "machine", "configuration", "data", "kafka", "redis" or "server". about: the thing looked at. says: what
            was found. mend: what to do about it; empty when nothing is to be done.
    """

    level: Level
    area: str
    about: str
    says: str
    mend: str = ""


Check = Callable[[], Iterable[Finding]]


def carried_out(area: str, about: str, check: Check) -> Iterator[Finding]:
    """The findings of a check without secrets; an error that it runs into is one more, and the others still run."""
    try:
        for found in check():
            yield Finding(found.level, found.area, found.about, redact(found.says), redact(found.mend))
    except HeadraceError as error:
        yield Finding("fail", area, about, redact(str(error)))
    except Exception as error:  # whatever a server answers is a finding, not the end of the doctor
        yield Finding("fail", area, about, redact(f"{type(error).__name__}: {error}"))
