"""Words on the command line become an entity's keys, typed as the event's columns are."""

from typing import Any

import pytest

from headrace.cli.questions import entity_keys
from headrace.features import Entity, Event, EventTime, IterableSource, define
from headrace.features.errors import DataError


class Landing(Event):
    airport: str
    runway: int
    at: EventTime


VIEW: Any = define(
    "landings",
    source=IterableSource([], Landing),
    entity=Entity("runway", keys=["airport", "runway"]),
    features={"landings_1h": Landing.count(last="1h")},
)


def test_keys_take_the_types_of_their_columns_in_the_order_of_the_entity() -> None:
    assert list(entity_keys(VIEW, ["runway=22", "airport=JFK"]).items()) == [("airport", "JFK"), ("runway", 22)]


def test_a_value_may_hold_an_equals_sign() -> None:
    assert entity_keys(VIEW, ["airport=a=b", "runway=1"])["airport"] == "a=b"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["JFK"], "'JFK' is no key=value. View 'landings' is asked by airport=... runway=..."),
        (["airprt=JFK", "runway=1"], "'airprt' is no key of entity 'runway'; did you mean 'airport'?"),
        (["airport=JFK"], "Key 'runway' of entity 'runway' is missing"),
        (["airport=JFK", "airport=LGA", "runway=1"], "Key 'airport' is given twice"),
        (["airport=JFK", "runway=22L"], "Key 'runway' is of type int64, got '22L'"),
    ],
)
def test_what_is_wrong_with_a_question_is_told(words: list[str], message: str) -> None:
    with pytest.raises(DataError) as error:
        entity_keys(VIEW, words)
    assert message in str(error.value)
