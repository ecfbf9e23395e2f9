"""`headrace size`: what a load takes, as a table or as data."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from headrace.cli.show import print_json
from headrace.flows.measured import MEASURED
from headrace.flows.sizing import Size, Workload, size


def size_and_show(load: Workload, *, as_json: bool) -> None:
    found = size(load, MEASURED)
    if as_json:
        print_json({"workload": asdict(load), "size": asdict(found), "costs": asdict(MEASURED)})
        return
    table = Table(box=None, padding=(0, 2), show_header=False)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for row in lines(load, found):
        table.add_row(*row)
    console = Console()
    console.print(table)
    console.print(f"Costs as measured on {MEASURED.said}; docs/scale.md says how.", style="dim")


def lines(load: Workload, found: Size) -> list[tuple[str, str, str]]:
    """What, how much, and what it is made of."""
    us = MEASURED.event_us.of(load.features) + MEASURED.write_us.of(load.features)
    return [
        ("worker cores", f"{found.cores:,}", f"{us:.2f} us an event and its row, {load.use:.0%} of a core used"),
        ("worker memory", _bytes(found.worker_gb), "state of entities as busy as this all day, and the processes"),
        ("partitions", f"{found.partitions:,}", "two for each core"),
        ("from Kafka", f"{_number(found.kafka_mb_s)} MB/s", f"{load.record_bytes} bytes a message"),
        ("rows to Redis", f"{_number(found.redis_rows_s)} /s", "one for each event and view"),
        ("Redis servers", f"{found.redis_cores:,}", f"{MEASURED.row_us.of(load.features):.2f} us a row, a core each"),
        ("Redis memory", _bytes(found.redis_gb), f"{load.layout} layout, {load.replicas} replicas"),
        ("checkpoints", f"{_number(found.checkpoint_mb_s)} MB/s", f"of {_bytes(found.checkpoint_gb)} in all"),
        ("log", f"{_bytes(found.log_gb_day)} a day", "if the peak lasted all day; log_every thins it"),
    ]


def _bytes(gb: float) -> str:
    for unit, worth in (("TB", 1e3), ("GB", 1.0), ("MB", 1e-3)):
        if gb >= worth:
            return f"{_number(gb / worth)} {unit}"
    return f"{_number(gb * 1e6)} KB"


def _number(value: float) -> str:
    """Three digits.

    >>> _number(1234567.0), _number(12.345), _number(0.01234)
    ('1,230,000', '12.3', '0.0123')
    """
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"
