"""A DuckDB file that several processes write: every row of each once, also of one that is killed amid it."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from tests.flows.sinks.simulated import place, rows

from headrace.features.sinks import DuckDBSink
from headrace.flows.sinks import writer_of
from headrace.flows.sinks.turns import turn
from headrace.stores.errors import UnreachableError

ROWS, EACH = 100, 5


def write_part(folder: str, part: str, until: int = ROWS) -> None:
    """Rows by one part of a flow, from its last checkpoint on."""
    data = Path(folder)
    kept = data / f"{part}.json"
    number, state = json.loads(kept.read_text()) if kept.exists() else (0, None)
    writer = writer_of(DuckDBSink(data / "a.duckdb", "alerts"), place(data, part=part))
    writer.open(None if state is None else bytes.fromhex(state))
    while number < until:
        writer.write(rows(number, number + EACH))
        number += EACH
        (data / f"{part}.new").write_text(json.dumps([number, writer.flush().hex()]))
        os.replace(data / f"{part}.new", kept)
        writer.committed()
    writer.close()


def counted(kept: Path) -> int:
    return int(json.loads(kept.read_text())[0]) if kept.exists() else 0


def test_two_processes_write_one_table_and_one_is_killed(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    one = spawn.Process(target=write_part, args=(str(tmp_path), "rides-0"))
    two = spawn.Process(target=write_part, args=(str(tmp_path), "rides-1", 1_000_000))  # it has no end but to be killed
    one.start()
    two.start()
    while two.is_alive() and counted(tmp_path / "rides-1.json") < ROWS // 4:
        time.sleep(0.001)
    assert two.is_alive()
    two.kill()
    two.join()
    until = counted(tmp_path / "rides-1.json") + ROWS // 4
    again = spawn.Process(target=write_part, args=(str(tmp_path), "rides-1", until))
    again.start()
    for process in (one, again):
        process.join(60)
        assert process.exitcode == 0
    with duckdb.connect(str(tmp_path / "a.duckdb"), read_only=True) as connection:
        found = Counter(row[0] for row in connection.execute("SELECT number FROM alerts").fetchall())
        writers = connection.execute("SELECT writer, number FROM _headrace_sinks ORDER BY writer").fetchall()
    assert found == Counter([*range(ROWS), *range(until)])
    assert writers == [("pickups.alerts-rides-0", ROWS // EACH), ("pickups.alerts-rides-1", until // EACH)]


def test_threads_write_one_table(tmp_path: Path) -> None:
    threads = [threading.Thread(target=write_part, args=(str(tmp_path), f"rides-{i}")) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with duckdb.connect(str(tmp_path / "a.duckdb"), read_only=True) as connection:
        found = Counter(row[0] for row in connection.execute("SELECT number FROM alerts").fetchall())
    assert found == Counter([*range(ROWS), *range(ROWS)])


def test_who_waits_for_a_turn_gives_up_when_told(tmp_path: Path) -> None:
    at = replace(place(tmp_path), give_up=threading.Event())
    writer = writer_of(DuckDBSink(tmp_path / "a.duckdb", "alerts"), at)
    (tmp_path / "a.duckdb.headrace").mkdir()
    with turn(tmp_path / "a.duckdb.headrace" / "turn", threading.Event(), lambda: None):
        at.give_up.set()
        with pytest.raises(UnreachableError, match="another writer of this machine has it"):
            writer.open(None)
    writer.close()
