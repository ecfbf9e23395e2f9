"""What the examples with steps say is so: by another way, from the same data."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import duckdb
import pyarrow.parquet as pq
import pytest

from headrace.features.sinks import ParquetSink
from headrace.flows.runner import run

EXAMPLES = Path(__file__).parents[2] / "examples"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / name / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


def test_the_tables_of_the_web_log_have_what_its_lines_say(tmp_path: Path) -> None:
    example = module("weblogs")
    run([example.flow_into(str(tmp_path / "log.duckdb"))], tmp_path / "run")
    with duckdb.connect(str(tmp_path / "log.duckdb"), read_only=True) as db:
        hits = Counter(db.execute("SELECT path, status FROM hits").fetchall())
        minutes = Counter(
            {path: int(n) for path, n in db.execute("SELECT path, sum(hits) FROM minutes GROUP BY 1").fetchall()}
        )
    lines = (EXAMPLES / "weblogs" / "access.csv").read_text().split("\n")
    words = [line.split() for line in lines if "HTTP/1.1" in line and "oops" not in line]
    assert hits == Counter((each[6].split("?")[0], int(each[8])) for each in words)
    # The last minute has not closed: no line came after it.
    open_ones = sum("09:59" in each[3] for each in words if not each[6].startswith("/img/"))
    assert sum(minutes.values()) == sum(n for (path, _), n in hits.items() if not path.startswith("/img/")) - open_ones


def test_quotes_are_the_best_of_all_that_is_offered(tmp_path: Path) -> None:
    example = module("orderbook")
    example.quotes.write(ParquetSink(tmp_path / "quotes"))
    run([example.flow], tmp_path / "run")
    written = pq.read_table(tmp_path / "quotes", columns=["pair", "bid", "ask", "imbalance", "at"])
    found = Counter(tuple(row.values()) for row in written.to_pylist())
    offered: dict[tuple[str, str, float], float] = {}
    expected: Counter[tuple[object, ...]] = Counter()
    for row in pq.read_table(EXAMPLES / "orderbook" / "updates.parquet").to_pylist():
        offered[row["pair"], row["side"], row["price"]] = row["size"]
        bids = sorted(
            -price for (pair, side, price), size in offered.items() if (pair, side) == (row["pair"], "bid") and size
        )
        asks = sorted(
            price for (pair, side, price), size in offered.items() if (pair, side) == (row["pair"], "ask") and size
        )
        if bids and asks and -bids[0] < asks[0]:
            bid = sum(offered[row["pair"], "bid", -price] for price in bids[:5])
            ask = sum(offered[row["pair"], "ask", price] for price in asks[:5])
            expected[row["pair"], -bids[0], asks[0], (bid - ask) / (bid + ask), row["at"]] += 1
    assert found == expected


def test_the_model_that_learns_in_the_flow_guesses_as_one_in_a_loop(tmp_path: Path) -> None:
    example = module("online_learning")
    run([example.flow_into(str(tmp_path / "guesses"))], tmp_path / "run")
    guesses = {row["ride"]: row["guess"] for row in pq.read_table(tmp_path / "guesses").to_pylist()}
    folder = EXAMPLES / "online_learning"
    rides = {row["ride"]: row for row in pq.read_table(folder / "rides.parquet").to_pylist()}
    heard = [(row["at"], 1, row["ride"], None) for row in rides.values()]
    heard += [
        (row["at"], 0, row["ride"], row["minutes"]) for row in pq.read_table(folder / "arrivals.parquet").to_pylist()
    ]
    model = example.Model().model
    expected = {}
    for _, _, ride, minutes in sorted(heard, key=lambda each: each[:3]):
        known = example.known(
            example.Told(**example.begun(example.Ride(**rides[ride])), minutes=minutes, at=rides[ride]["at"])
        )
        if minutes is None:
            expected[ride] = model.predict_one(known)
        else:
            model.learn_one(known, minutes)
    assert guesses == pytest.approx(expected, rel=1e-9)
