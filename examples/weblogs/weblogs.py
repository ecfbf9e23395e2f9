"""What goes on in the shop? A web server's log as a stream, parsed line by line into a DuckDB table, asked with SQL.

python weblogs.py        replays the hour and asks: README.md shows what it prints
"""

import json
import re
import tempfile
from datetime import datetime
from pathlib import Path

import duckdb

from headrace import DuckDBSink, Event, EventTime, FileSource, Flow, OfflineLog, run
from headrace.features import Tumbling
from headrace.stores.deadletters import read_dead_letters

HERE = Path(__file__).parent
COMBINED = re.compile(
    r'(?P<address>\S+) \S+ \S+ \[(?P<at>[^\]]+)\] "(?P<method>[A-Z]+) (?P<path>\S+) [^"]*" '
    r'(?P<status>\d{3}) (?P<size>\d+) "[^"]*" "(?P<agent>[^"]*)" (?P<seconds>[\d.]+)'
)


class Line(Event):
    line: str
    at: EventTime


class Hit(Event):
    address: str
    path: str
    status: int
    size: int
    agent: str
    seconds: float
    at: EventTime


class Minute(Event):
    path: str
    hits: int
    failed: int
    slowest: float
    window_end: datetime
    at: EventTime


def parsed(row: Line) -> dict[str, object]:
    found = COMBINED.fullmatch(row.line)
    if found is None:
        raise ValueError("no line of the combined format")
    return {**found.groupdict(), "path": found["path"].partition("?")[0], "status": int(found["status"]),
            "size": int(found["size"]), "seconds": float(found["seconds"]), "at": row.at}  # fmt: skip


def counted(state: tuple[int, int, float], hit: Hit) -> tuple[int, int, float]:
    hits, failed, slowest = state
    return hits + 1, failed + (hit.status >= 500), max(slowest, hit.seconds)


def minute(state: tuple[int, int, float]) -> dict[str, object]:
    return dict(zip(("hits", "failed", "slowest"), state, strict=True))


def flow_into(file: str) -> Flow:
    """The flow, with the tables `hits` and `minutes` of a DuckDB file."""
    flow = Flow("weblogs")
    hits = flow.read(FileSource(HERE / "access.csv", Line, name="access", lateness="10s")).map_rows(parsed, gives=Hit)
    hits.write(DuckDBSink(file, "hits", name="to_hits"))
    pages = hits.filter(lambda hit: not hit.path.startswith("/img/"), name="pages")
    minutes = pages.key_by("path").fold(
        counted, Tumbling("1m"), initial=lambda: (0, 0, 0.0), finish=minute, gives=Minute, name="minutes"
    )
    minutes.write(DuckDBSink(file, "minutes", name="to_minutes"))
    return flow


flow = flow_into("weblogs.duckdb")

QUESTIONS = {
    "Which pages are slow, before and after the release at 9:35?": """
        SELECT path, count(*) AS hits,
               round(avg(seconds) FILTER ("at" < '2026-03-02 09:35+00'), 2) AS before,
               round(avg(seconds) FILTER ("at" >= '2026-03-02 09:35+00'), 2) AS after
        FROM hits WHERE status <> 404 GROUP BY path ORDER BY after DESC LIMIT 3
    """,
    "Who asks for what is not there?": """
        SELECT address, count(*) AS misses, count(DISTINCT path) AS paths, any_value(agent) AS agent
        FROM hits WHERE status = 404 GROUP BY address HAVING misses > 10
    """,
    "In which minutes did the checkout fail most often?": """
        SELECT strftime(window_end, '%H:%M') AS until, hits, failed, round(slowest, 1) AS slowest
        FROM minutes WHERE path = '/checkout' AND failed > 0 ORDER BY failed DESC, until LIMIT 3
    """,
}


def main(data: Path) -> None:
    file = str(data / "weblogs.duckdb")
    summary = run([flow_into(file)], data / "run")
    print(f"{summary.read['access']} lines, {summary.given['weblogs.parsed']} of them hits")
    for letter in read_dead_letters(OfflineLog(data / "run" / "log")).to_pylist():
        print(f"  left aside: {json.loads(letter['payload'])['line']!r}")
    with duckdb.connect(file, read_only=True) as db:
        db.execute("SET TimeZone = 'UTC'")
        for question, sql in QUESTIONS.items():
            print(f"\n{question}")
            asked = db.execute(sql)
            print("  " + "".join(f"{column[0]:<16}" for column in asked.description or ()).rstrip())
            for row in asked.fetchall():
                print("  " + "".join(f"{value!s:<16}" for value in row).rstrip())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
