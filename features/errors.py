"""Errors of Headrace: each names the thing, what was got, what was expected and the next move.

    HeadraceError
    ├── DefinitionError (ValueError)            a definition is wrong; raised while the definition is read
    │   └── UnknownColumnError (AttributeError)   a column that the event does not have
    └── DataError (ValueError)                  a value handed in at run time is wrong
        └── PoisonError                           rows that a sink will never take; the rows alone are given up

Every package of Headrace derives its own errors from one of these, so `except HeadraceError` catches all of them.
"""

from __future__ import annotations

from collections.abc import Iterable


class HeadraceError(Exception):
    """Base of every error that Headrace raises on purpose."""


class DefinitionError(HeadraceError, ValueError):
    """A definition (event, source, window, feature, view) is wrong; nothing has run yet."""


class UnknownColumnError(DefinitionError, AttributeError):
    """A name that is no column of the event.

    Also an `AttributeError`, so that `hasattr(Ride, "name")` answers as Python programs expect.
    """

    @classmethod
    def of(cls, event: str, name: str, columns: Iterable[str], *, where: str = "") -> UnknownColumnError:
        """The error for `event.name`, with the nearest column as a suggestion and the list of columns."""
        known = list(columns)
        place = f"{where}: " if where else ""
        return cls(
            f"{place}event '{event}' has no column '{name}'{did_you_mean(name, known)} "
            f"Its columns are: {', '.join(known) or 'none'}."
        )


class DataError(HeadraceError, ValueError):
    """A value handed in at run time (an instant, a key, a row) is not what the definition says."""


class PoisonError(DataError):
    """Rows that a sink will never take, however often it is tried; a function of a CallableSink raises it.

    Of several rows each is then tried alone, and those refused alone become dead letters.
    """


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'fare'?"` when a known name is near, else `"."`.

    >>> did_you_mean("fair", ["fare", "city"])
    "; did you mean 'fare'?"
    >>> did_you_mean("xyz", ["fare", "city"])
    '.'
    """
    import difflib  # only on the way to an error

    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else "."
