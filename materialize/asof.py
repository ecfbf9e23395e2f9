"""For each question the newest row of its entity at or before its instant, found in the log by DuckDB.

asked (n rows: keys, instant)
  -> the entities asked, numbered                                                    at most n
  -> instants of their rows in the log, settled and provisional, as they stream by   any number, some million at a time
  -> the newest at or before each question (predecessors.py)                         at most n pairs (question, instant)
  -> the rows of those instants, with the columns that are wanted                    at most n rows
  -> in the order of the questions, null where there is none                         n rows

What costs is to look at every row of the log twice: at keys and instant, then at the features. DuckDB's own ASOF JOIN
does both at once, and sorts whole rows. An entity has one row at an instant, so that keys and instant name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from headrace.materialize.predecessors import NONE, Predecessors
from headrace.stores.layout import EVENT_TIMESTAMP, RowLayout
from headrace.stores.sql import fetch, instant, name

if TYPE_CHECKING:
    import duckdb
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

INSTANT = pa.timestamp("us", tz="UTC")
PORTION = 1 << 21
"""Instants of the log that are looked at together; as many again are read meanwhile."""


def newest_rows(
    connection: duckdb.DuckDBPyConnection,
    source: str,
    layout: RowLayout,
    columns: Sequence[str],
    keys: Sequence[pa.ChunkedArray],
    times: Ints,
) -> pa.Table:
    """The n rows of `columns`, one for each question.

    Args:
        source: SQL of the log's rows. columns: wanted of them. keys: (n,) each, of the layout's keys in order.
        times: (n,) microseconds UTC.
    """
    ours = [f"k{at}" for at in range(len(keys))]
    theirs = [name(key) for key in layout.key_names]
    same = " AND ".join(f"e.{mine} = r.{other}" for mine, other in zip(ours, theirs, strict=True))
    last = instant(int(times.max()) if len(times) else 0)
    connection.register(
        "asked", pa.table({"row": pa.array(np.arange(len(times))), **dict(zip(ours, keys, strict=True))})
    )
    listed = ", ".join(ours)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE entities AS SELECT row_number() OVER () - 1 AS slot, * "
        f"FROM (SELECT DISTINCT {listed} FROM asked WHERE {' AND '.join(f'{key} IS NOT NULL' for key in ours)})"
    )
    numbered = fetch(connection, f"SELECT a.row, e.slot FROM asked a JOIN entities e USING ({listed})")
    connection.unregister("asked")
    row, slot = (_ints(numbered.column(column)) for column in ("row", "slot"))
    questions = Predecessors(slot, times[row], len(times))
    rows = connection.sql(
        f"SELECT e.slot, r.{EVENT_TIMESTAMP} AS at FROM {source} r JOIN entities e ON {same} "
        f"WHERE r.{EVENT_TIMESTAMP} <= {last}"
    )
    _tell(questions, rows.to_arrow_reader(PORTION // 16))
    at = questions.found()
    hit = at != NONE
    found = pa.table({"row": row[hit], "slot": slot[hit], "at": pa.array(at[hit]).cast(INSTANT)})
    connection.register("found", found)
    got = fetch(
        connection,
        f"""
        SELECT f.row, {", ".join("r." + name(column) for column in columns)}
        FROM {source} r JOIN (SELECT f.row, f.at, e.* FROM found f JOIN entities e USING (slot)) f
            ON {same.replace("e.", "f.")} AND f.at = r.{EVENT_TIMESTAMP}
        WHERE r.{EVENT_TIMESTAMP} <= {last}
        """,
    )
    connection.unregister("found")
    place = np.full(len(times), -1)
    place[_ints(got.column("row"))] = np.arange(len(got))
    return got.select(list(columns)).take(pa.array(place, mask=place < 0))


def _tell(questions: Predecessors, rows: pa.RecordBatchReader) -> None:
    """Go through the instants of the log; one portion is sorted while the next one is read."""
    with ThreadPoolExecutor(1, "headrace-asof") as pool:
        under_way: Future[None] | None = None
        for slots, times in _portions(rows):
            if under_way is not None:
                under_way.result()
            under_way = pool.submit(questions.tell, slots, times)
        if under_way is not None:
            under_way.result()


def _portions(rows: pa.RecordBatchReader) -> Iterator[tuple[Ints, Ints]]:
    held: list[tuple[Ints, Ints]] = []
    count = 0
    for batch in rows:
        held.append((_ints(batch.column(0)), _ints(batch.column(1).cast(pa.int64()))))
        count += batch.num_rows
        if count >= PORTION:
            yield _joined(held)
            held, count = [], 0
    if held:
        yield _joined(held)


def _joined(held: Sequence[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
    slots, times = (np.concatenate(each) for each in zip(*held, strict=True))
    return slots, times


def _ints(column: pa.Array | pa.ChunkedArray) -> Ints:
    found: Ints = column.to_numpy()
    return found
