"""Rows on their way to the online store: of each entity only the newest matters."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from headrace.features.views import ViewDefinition

COALESCE_ROWS = 50_000
"""Rows that gather before older ones of the same entities are dropped."""
FEW = 128
"""Among so many rows the newest are found in Python: setting Arrow to work takes longer."""


class NewestRows:
    """Rows of several views, in the order in which they were made; memory follows the entities, not the rows.

    views: by name.
    """

    def __init__(self, views: Mapping[str, ViewDefinition]) -> None:
        self._views = views
        self._tables: dict[str, list[pa.Table]] = {}
        self._rows = self._kept = 0

    def __len__(self) -> int:
        """How many rows are held, older ones of the same entities included."""
        return self._rows

    def add(self, rows: Mapping[str, pa.Table]) -> None:
        """Rows by view name, newer than all before."""
        for name, table in rows.items():
            self._tables.setdefault(name, []).append(table)
            self._rows += table.num_rows
        if self._rows - self._kept > COALESCE_ROWS:
            self._tables = {name: [table] for name, table in self._newest().items()}
            self._rows = self._kept = sum(table.num_rows for its in self._tables.values() for table in its)

    def take(self) -> dict[str, pa.Table]:
        """By view name, the newest row of each entity; none is held afterwards."""
        taken = self._newest()
        self._tables, self._rows, self._kept = {}, 0, 0
        return taken

    def _newest(self) -> dict[str, pa.Table]:
        return {name: newest_rows(self._views[name], tables) for name, tables in self._tables.items()}


def newest_rows(view: ViewDefinition, tables: list[pa.Table]) -> pa.Table:
    """Of rows in the order in which they were made, the last of each entity."""
    table = tables[0] if len(tables) == 1 else pa.concat_tables(tables)
    if table.num_rows < 2:
        return table
    if table.num_rows <= FEW:
        keys = zip(*(table.column(key).to_pylist() for key in view.entity.keys), strict=True)
        newest = {key: at for at, key in enumerate(keys)}
        return table if len(newest) == table.num_rows else table.take(sorted(newest.values()))
    codes = np.zeros(table.num_rows, dtype=np.int64)
    for key in view.entity.keys:
        column = table.column(key).combine_chunks()
        coded = column.dictionary_encode() if not pa.types.is_dictionary(column.type) else column
        if isinstance(coded, pa.ChunkedArray):
            coded = coded.combine_chunks()
        codes = codes * len(coded.dictionary) + coded.indices.to_numpy(zero_copy_only=False)
        if len(view.entity.keys) > 1:
            codes = np.unique(codes, return_inverse=True)[1].astype(np.int64)
    last = np.full(int(codes.max()) + 1, -1, dtype=np.int64)
    last[codes] = np.arange(len(codes))  # of equal indices the last one stays
    last = last[last >= 0]
    if len(last) == len(codes):
        return table
    return table.take(pa.array(np.sort(last)))
