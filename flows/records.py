"""State of some slots in named columns, apart from how the kernels lay it out: what snapshots hold and changes work on.

    fixed      name -> (n, ...)         one cell per slot
    lists      name -> List             as many cells per slot as it has: tiles, waiting events, bytes of an object

Slots are in ascending order, a slot's cells in the order of its list. So equal states have equal records, however they
came about, and the records of some slots may be put in the place of older ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]


@dataclass
class List:
    """counts: (n,) int64 cells of each slot. columns: name -> (sum of counts, ...)."""

    counts: Ints
    columns: dict[str, Array] = field(default_factory=dict)

    def starts(self) -> Ints:
        """(n,) where each slot's cells begin."""
        return np.cumsum(self.counts) - self.counts

    def owners(self) -> Ints:
        """(cells,) the row that each cell belongs to."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def ordinals(self) -> Ints:
        """(cells,) the place of each cell within its row's list."""
        return np.arange(int(self.counts.sum())) - np.repeat(self.starts(), self.counts)

    def take(self, rows: Ints) -> "List":
        """The lists of the rows given, in that order."""
        counts = self.counts[rows]
        begin = np.cumsum(counts) - counts
        cells = np.arange(int(counts.sum())) - np.repeat(begin - self.starts()[rows], counts)
        return List(counts, {name: column[cells] for name, column in self.columns.items()})

    def only(self, kept: Array) -> "List":
        """Only the cells for which `kept`, (cells,) bool, is true."""
        counts = np.bincount(self.owners()[kept], minlength=len(self.counts)).astype(np.int64)
        return List(counts, {name: column[kept] for name, column in self.columns.items()})


@dataclass
class Records:
    """State of n slots."""

    n: int
    fixed: dict[str, Array] = field(default_factory=dict)
    lists: dict[str, List] = field(default_factory=dict)

    def take(self, rows: Ints) -> "Records":
        """The records of the rows given, in that order."""
        return Records(
            len(rows),
            {name: column[rows] for name, column in self.fixed.items()},
            {name: one.take(rows) for name, one in self.lists.items()},
        )

    def arrays(self) -> dict[str, Array]:
        """Every column by a name that says where it belongs; see `of_arrays`."""
        out = {f"fixed/{name}": column for name, column in self.fixed.items()}
        for name, one in self.lists.items():
            out[f"count/{name}"] = one.counts
            out.update({f"list/{name}/{column}": values for column, values in one.columns.items()})
        return out

    @classmethod
    def of_arrays(cls, n: int, arrays: Mapping[str, Array]) -> "Records":
        """The records of which `arrays` gave the columns; arrays of other names are left alone."""
        made = cls(n)
        for path, values in arrays.items():
            kind, _, name = path.partition("/")
            if kind == "fixed":
                made.fixed[name] = values
            elif kind == "count":
                made.lists[name] = List(values)
        for path, values in arrays.items():
            kind, _, name = path.partition("/")
            if kind == "list":
                owner, _, column = name.rpartition("/")
                made.lists[owner].columns[column] = values
        return made

    @classmethod
    def joined(cls, parts: Sequence["Records"]) -> "Records":
        """The records of all parts one after the other; all have the same columns."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]
        return cls(
            sum(part.n for part in parts),
            {name: np.concatenate([part.fixed[name] for part in parts]) for name in first.fixed},
            {
                name: List(
                    np.concatenate([part.lists[name].counts for part in parts]),
                    {
                        column: np.concatenate([part.lists[name].columns[column] for part in parts])
                        for column in one.columns
                    },
                )
                for name, one in first.lists.items()
            },
        )

    @classmethod
    def latest(cls, chain: Sequence[tuple[Ints, "Records"]]) -> "Records":
        """Of each slot the record that came last; the parts of `chain` name their slots and come oldest first.

        Every slot from 0 to the greatest has a record in one of them.
        """
        slots = np.concatenate([slots for slots, _ in chain])
        newest = np.full(int(slots.max(initial=-1)) + 1, -1, dtype=np.int64)
        newest[slots] = np.arange(len(slots))  # of equal indices the last one counts
        joined = cls.joined([records for _, records in chain])
        if len(chain) == 1 and np.array_equal(newest, np.arange(len(newest))):
            return joined
        return joined.take(newest)
