"""Events: columns from annotations, whichever way they are written, and events as objects."""

from __future__ import annotations

import pickle
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Optional

import pytest

from headrace.features import DefinitionError, Entity, Event, EventTime, FeatureView, KafkaSource, definition
from headrace.features.columns import Column
from headrace.features.events import Field


class Ride(Event):
    driver_id: str
    fare: float
    seats: int | None
    paid: Optional[bool]  # noqa: UP045
    picture: bytes
    booked: datetime
    tip: Column[float]
    note: Column[str | None]
    at: EventTime


class Delivery(Ride):
    parcels: int
    fare: int  # type: ignore[assignment]


def test_columns_come_from_annotations() -> None:
    schema = Ride.__schema__
    assert schema is not None
    assert (schema.name, schema.time_field) == ("Ride", "at")
    assert schema.fields == (
        Field("driver_id", "string"),
        Field("fare", "float64"),
        Field("seats", "int64", True),
        Field("paid", "bool", True),
        Field("picture", "bytes"),
        Field("booked", "timestamp"),
        Field("tip", "float64"),
        Field("note", "string", True),
        Field("at", "timestamp"),
    )
    assert "fare" in schema
    assert "fair" not in schema
    column: Any = Ride.seats
    assert (column.event, column.name, column.dtype, column.nullable) == ("Ride", "seats", "int64", True)


def test_events_inherit_columns() -> None:
    schema = Delivery.__schema__
    assert schema is not None
    assert schema.names == (*Ride.__schema__.names, "parcels")  # type: ignore[union-attr]
    assert schema.field("fare").dtype == "int64"
    assert (schema.name, schema.time_field) == ("Delivery", "at")
    assert str(Delivery.tip) == "Delivery.tip"


def test_annotations_that_are_text_resolve_inside_functions() -> None:
    class Local(Event):
        x: int | None
        at: EventTime

    assert Local.__schema__ is not None
    assert Local.__schema__.field("x") == Field("x", "int64", True)


def test_events_print_as_their_columns() -> None:
    assert repr(Ride).startswith("Ride(driver_id: string, fare: float64, seats: int64 | None,")
    assert repr(Ride.where(Ride.fare > 1)) == "Ride.where(Ride.fare > 1)"
    assert repr(Event) == "<class 'headrace.features.events.Event'>"


def test_an_object_is_one_event() -> None:
    class Tap(Event):
        card: str
        amount: float | None
        at: EventTime

    noon = datetime(2026, 5, 1, 12, tzinfo=UTC)
    tap = Tap(card="7", at=noon)
    assert vars(tap) == {"card": "7", "amount": None, "at": noon}
    assert tap.card == "7"
    assert tap == Tap(card="7", amount=None, at=noon)
    assert tap != Tap(card="8", at=noon)
    assert repr(tap).startswith("Tap(card='7', amount=None, at=")


def test_columns_have_no_values() -> None:
    with pytest.raises(DefinitionError, match=r"Event 'Bad': 'x' has no type. Write `x: float`"):

        class Bad(Event):
            x = 3
            at: EventTime

    with pytest.raises(DefinitionError, match=r"Event 'Worse': column 'x' has a value."):

        class Worse(Event):
            x: int = 3
            at: EventTime


def test_definitions_travel_between_processes() -> None:
    class Rides(FeatureView, source=KafkaSource("rides", Ride), entity=Entity("driver", key="driver_id")):
        n = Ride.where(Ride.tip > 1).count(last=["1h", "1d"], where=Ride.fare > 3)

    view = definition(Rides)
    assert pickle.loads(pickle.dumps(view)) == view


def test_type_checkers_know_columns(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = """
        from headrace.features import Entity, Event, EventTime, FeatureView, KafkaSource, derived
        from headrace.features.columns import Column

        class Ride(Event):
            driver_id: Column[str]
            fare: Column[float]
            tip: Column[float | None]
            at: EventTime

        done = Ride.where((Ride.fare > 3) & Ride.driver_id.is_in(["a"]))
        rides = KafkaSource("rides", Ride, dedup=Ride.driver_id)

        class Activity(FeatureView, source=rides, entity=Entity("driver", key="driver_id"), ttl="7d"):
            n = done.count(last="1h")
            mean = Ride.fare.mean(last=["1h", "2h"], where=Ride.at > "2020-01-01T00:00:00Z")
            half = derived(n / 2, default=0.0)
    """
    file = tmp_path / "views.py"
    file.write_text(textwrap.dedent(program))
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(file)]
    root = Path(__file__).parents[2]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=root, env={"MYPYPATH": "src", "PATH": "/usr/bin"})
    assert ran.returncode == 0, ran.stdout + ran.stderr
