"""An online store filled from the log answers as the training set does."""

from pathlib import Path

import pytest

from headrace.features.errors import DataError
from headrace.materialize.online import sync
from headrace.materialize.training import training_set
from headrace.serving.client import Client
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog
from headrace.stores.online import Clock
from headrace.stores.testing import AT, Visits, instant, row, rows_of


@pytest.fixture
def log(tmp_path: Path) -> OfflineLog:
    log = OfflineLog(tmp_path / "log")
    rows = [({"user": f"u{i % 7}"}, row(when, visits=when)) for i, when in enumerate(range(10, 110))]
    log.append(Visits, rows_of(Visits, rows))
    log.tail(Visits, rows_of(Visits, [({"user": f"u{i}"}, row(200 + i, visits=0)) for i in range(7)]))
    log.commit(clock=Clock(AT + 100, "stream"))
    return log


@pytest.mark.parametrize("when", [None, 15, 100, 203, 500])
def test_the_store_answers_as_the_training_set_does(log: OfflineLog, tmp_path: Path, when: int | None) -> None:
    with EmbeddedStore(tmp_path / "online") as store:
        written = sync(store, Visits, log=log, at_us=None if when is None else AT + when)
        users = [f"u{i}" for i in range(8)]
        upto = 100 if when is None else when
        assert store.clock() == (AT + upto, "stream")
        spine = [{"user": user, "event_timestamp": instant(upto)} for user in users]
        expected = training_set(spine, Visits, log=log, statuses=True).to_pylist()
        vectors = Client(store).get_many(Visits, [{"user": user} for user in users])
        assert [vector["visits"] for vector in vectors] == [each["visits"] for each in expected]
        assert [vector.status["visits"] for vector in vectors] == [each["visits__status"] for each in expected]
        assert written == {"visits": sum(vector.status["visits"] != "NOT_FOUND" for vector in vectors)}


def test_newer_rows_of_the_store_stay(log: OfflineLog, tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path / "online") as store:
        store.write(Visits, rows_of(Visits, [({"user": "u1"}, row(1000, visits=1000))]))
        assert sync(store, [Visits], log=log) == {"visits": 6}
        assert sync(store, [Visits], log=log) == {"visits": 6}
        assert Client(store).get(Visits, user="u1")["visits"] == 1000


def test_without_a_clock_the_instant_must_be_said(log: OfflineLog, tmp_path: Path) -> None:
    log.commit()
    with EmbeddedStore(tmp_path / "online") as store:
        with pytest.raises(DataError, match="Say as of when to fill the store"):
            sync(store, Visits, log=log)
        assert sync(store, Visits, log=log, at_us=AT + 20) == {"visits": 7}
