"""`headrace size`, and the page that shows what it says."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from headrace.cli.commands import app
from headrace.cli.sizing import lines
from headrace.features.errors import DefinitionError
from headrace.flows.measured import MEASURED
from headrace.flows.sizing import Cost, Costs, Workload, size

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}
ROUND = Costs(
    event_us=Cost(2.0, 0.1),
    write_us=Cost(0.5, 0.05),
    row_us=Cost(4.0, 0.2),
    state=Cost(1000.0, 100.0),
    state_full=Cost(9000.0, 200.0),
    snapshot=Cost(50.0, 5.0),
    snapshot_full=Cost(500.0, 10.0),
    online_feast=Cost(200.0, 20.0),
    online_packed=Cost(150.0, 10.0),
    log_row=Cost(10.0, 1.0),
    log_rows=1.5,
    process=3e8,
    said="nothing",
)
LOADS = st.builds(
    Workload,
    events_per_s=st.floats(1, 1e9),
    entities=st.floats(1, 1e10),
    features=st.integers(1, 500),
    views=st.integers(1, 20),
)


def test_a_load_by_hand() -> None:
    found = size(Workload(100_000, 1_000_000, features=10, use=0.5, replicas=1), ROUND)
    # 4 us an event with its row, half a core used: 0.4 / 0.5. 6 us a row: 0.6 / 0.5. In 10 s 63 % of a million entities
    # have events; each has one every 10 s, so 95.02 % of its hops of 30 s have one, 99.75 % of 60 s, all longer ones.
    busy = (0.950213 + 0.997521 + 2) / 4
    assert (found.cores, found.partitions, found.redis_cores) == (1, 4, 2)
    assert found.worker_gb == pytest.approx(0.3 + 2.0 + 9.0 * busy)
    assert found.redis_gb == pytest.approx(2 * 0.4)
    assert found.kafka_mb_s == pytest.approx(15.0)
    assert found.checkpoint_gb == pytest.approx(0.1 + 0.5 * busy)
    assert found.checkpoint_mb_s == pytest.approx(63.2121 * found.checkpoint_gb, rel=1e-5)
    assert found.log_gb_day == pytest.approx(100_000 * 1.5 * 20 * 86_400 / 1e9)


@given(LOADS, st.sampled_from(["events_per_s", "entities", "features", "views", "record_bytes"]))
def test_more_never_takes_less(load: Workload, what: str) -> None:
    more = replace(load, **{what: getattr(load, what) * 2})
    few, many = asdict(size(load, ROUND)), asdict(size(more, ROUND))
    if what == "entities":
        # As many events among more entities: each has fewer hops with an event, and is smaller in a checkpoint.
        del few["checkpoint_mb_s"]
    assert all(few[name] <= many[name] * (1 + 1e-9) for name in few)


def test_an_entity_takes_more_the_busier_it_is() -> None:
    idle, some, full = (size(Workload(rate * 1e6, 1e6), ROUND).checkpoint_gb for rate in (1e-9, 1e-3, 1e3))
    assert (idle, full) == (pytest.approx(0.1, rel=1e-3), pytest.approx(0.6))
    assert idle < some < full


@given(LOADS)
def test_a_checkpoint_is_never_of_more_than_all(load: Workload) -> None:
    found = size(load, ROUND)
    assert found.checkpoint_mb_s * load.checkpoint_s / 1e3 <= found.checkpoint_gb * (1 + 1e-9)


@pytest.mark.parametrize("wrong", [{"events_per_s": 0}, {"features": -1}, {"use": 1.5}, {"replicas": -1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        Workload(**{"events_per_s": 1.0, "entities": 1.0, **wrong})  # type: ignore[arg-type]


def number(text: str) -> float:
    value, _, unit = text.partition(" ")
    return float(value) * UNITS.get(unit, 1.0)


def shown(events_per_s: float, entities: float) -> list[str]:
    """The cells of a line of the page's table, behind the two that say the load."""
    load = Workload(events_per_s, entities)
    return [how_much for _, how_much, _ in lines(load, size(load, MEASURED))]


def test_the_page_shows_what_the_command_says() -> None:
    rows = re.findall(r"^\| ([\d.]+ [kM]) \| ([\d.]+ [MB]) \| (.+) \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) >= 9
    for events, entities, cells in rows:
        assert cells.split(" | ") == shown(number(events), number(entities)), (events, entities)
    text = PAGE.read_text()
    assert MEASURED.said in text
    for name in (
        "event_us",
        "write_us",
        "row_us",
        "state",
        "state_full",
        "snapshot",
        "snapshot_full",
        "online_feast",
        "online_packed",
        "log_row",
    ):
        cost = getattr(MEASURED, name)
        assert f"| {cost.base:,.5g} | {cost.each:,.5g} |" in text, name


def test_the_command() -> None:
    ran = CliRunner().invoke(app, ["size", "--events-per-s", "1e6", "--entities", "1e8", "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.output)
    assert said["size"]["cores"] == size(Workload(1e6, 1e8), MEASURED).cores
    ran = CliRunner().invoke(app, ["size", "--events-per-s", "1e4", "--entities", "1e6"])
    assert "worker cores" in ran.output
    assert MEASURED.said in ran.output
