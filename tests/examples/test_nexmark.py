"""Nexmark's queries as a flow, equal to DuckDB's answers over the same events, which come out of order."""

from __future__ import annotations

import importlib.util
import random
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from headrace.flows.runner import run

FOLDER = Path(__file__).parents[2] / "examples" / "nexmark"
EVENTS = 6000

CLOSED = """
    closed AS (
        SELECT a.id AS auction, a.category, a.seller, max(b.price) AS price, a.expires
        FROM auctions a JOIN bids b ON b.auction = a.id AND b."at" BETWEEN a."at" AND a.expires
        WHERE a.expires <= (SELECT max("at") FROM bids) GROUP BY ALL
    )
"""
QUERIES = {
    "1 prices in euros": 'SELECT auction, price * 0.89::DOUBLE, "at" FROM bids',
    "2 bids on some auctions": 'SELECT auction, bidder, price, "at" FROM bids WHERE auction % 123 = 0',
    "3 who sells nearby": """
        SELECT a.id, p.name, p.city, p.state, a."at"
        FROM auctions a JOIN persons p ON p.id = a.seller AND p."at" <= a."at"
        WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
    """,
    "4 mean price by category": f"""
        WITH {CLOSED} SELECT category, avg(price) OVER (PARTITION BY category ORDER BY expires), closes
        FROM (SELECT *, {{closes}} AS closes FROM closed)
    """,
    "5 hot items": """
        WITH starts AS (SELECT unnest(generate_series(TIMESTAMPTZ '2026-03-01 23:59:50+00',
                               (SELECT max("at") FROM bids), INTERVAL 2 SECOND)) AS began),
        counts AS (SELECT began, auction, count(*) AS n FROM starts
                   JOIN bids ON "at" > began AND "at" <= began + INTERVAL 10 SECOND
                   WHERE began + INTERVAL 10 SECOND <= (SELECT max("at") FROM bids) GROUP BY ALL),
        most AS (SELECT began, max(n) AS n FROM counts GROUP BY ALL)
        SELECT string_agg(auction, ' ' ORDER BY auction), n, began + INTERVAL 10 SECOND
        FROM counts JOIN most USING (began, n) GROUP BY began, n
    """,
    "6 mean of ten by seller": f"""
        WITH {CLOSED} SELECT seller, avg(price) OVER (PARTITION BY seller ORDER BY expires ROWS 9 PRECEDING), closes
        FROM (SELECT *, {{closes}} AS closes FROM closed)
    """,
    "7 highest bid": """
        WITH best AS (SELECT {ten} AS until, arg_max(struct_pack(auction, price), (price, -epoch_us("at"))) AS b
                      FROM bids GROUP BY ALL)
        SELECT b.auction, 0, b.price, until FROM best WHERE until <= (SELECT max("at") FROM bids)
    """,
    "8 new sellers": """
        SELECT DISTINCT p.id, p.name, {ten_p} FROM persons p JOIN auctions a ON a.seller = p.id AND {ten_p} = {ten_a}
        WHERE abs(epoch_us(p."at") - epoch_us(a."at")) <= 10000000
    """,
    "11 visits of bidders": """
        WITH marked AS (SELECT *, coalesce("at" - lag("at") OVER w > INTERVAL 10 SECOND, true)::INT AS begins FROM bids
                        WINDOW w AS (PARTITION BY bidder ORDER BY "at")),
        numbered AS (SELECT *, sum(begins) OVER (PARTITION BY bidder ORDER BY "at") AS visit FROM marked)
        SELECT bidder, count(*), min("at"), max("at"), max("at") + INTERVAL 10 SECOND
        FROM numbered GROUP BY bidder, visit HAVING max("at") + INTERVAL 10 SECOND <= (SELECT max("at") FROM bids)
    """,
}
ENDS = {
    "closes": "make_timestamptz((epoch_us(expires) + 999) // 1000 * 1000)",
    "ten": 'make_timestamptz((epoch_us("at") + 9999999) // 10000000 * 10000000)',
    "ten_p": 'make_timestamptz((epoch_us(p."at") + 9999999) // 10000000 * 10000000)',
    "ten_a": 'make_timestamptz((epoch_us(a."at") + 9999999) // 10000000 * 10000000)',
}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_nexmark", FOLDER / "nexmark.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    """The rows as they may arrive: up to two seconds out of order."""
    draw = random.Random(seed)
    arrives = [at + timedelta(seconds=draw.uniform(0, 2)) for at in table.column("at").to_pylist()]
    return table.take(pa.array(sorted(range(len(arrives)), key=arrives.__getitem__)))


@pytest.fixture(scope="module")
def answered(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    tables = [shuffled(table, seed) for seed, table in enumerate(example.generate.made(EVENTS))]
    flow, answers = example.asked(*tables, lateness="2s")
    found = {name: stream.collect() for name, stream in answers.items()}
    summary = run([flow], tmp_path_factory.mktemp("nexmark"), batch_size=700)
    assert not summary.dead
    return found


def rounded(rows: list[tuple[Any, ...]]) -> Counter[Any]:
    return Counter(tuple(round(each, 6) if isinstance(each, float) else each for each in row) for row in rows)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_gives_what_duckdb_gives(
    query: str, example: ModuleType, answered: dict[str, list[dict[str, Any]]]
) -> None:
    persons, auctions, bids = example.generate.made(EVENTS)
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for name, table in (("persons", persons), ("auctions", auctions), ("bids", bids)):
            db.register(name, table)
        expected = rounded(db.execute(QUERIES[query].format(**ENDS)).fetchall())
    rows = [dict(row) for row in answered[query]]
    if query == "8 new sellers":  # told at the moment at which both are known
        rows = [{"id": row["id"], "name": row["name"], "window": row["window"]} for row in rows]
    assert rounded([tuple(row.values()) for row in rows]) == expected
    assert sum(expected.values()) >= 5
