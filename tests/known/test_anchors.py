"""The cases that other systems get wrong: each test names what they answer."""

from headrace.features import FeatureView
from headrace.testing import replay
from tests.known.payments import Payment, paid, patient, payments, user


class LastHour(FeatureView, source=patient, entity=user):
    """Every statistic of the last hour."""

    total = Payment.amount.sum(last="1h")
    count = Payment.count(last="1h")
    mean = Payment.amount.mean(last="1h")
    most = Payment.amount.max(last="1h")
    least = Payment.amount.min(last="1h")
    std = Payment.amount.std(last="1h")


def test_a_burst_after_a_quiet_time_knows_nothing_of_what_came_before() -> None:
    """
    minute  1                                          181 182 183   185
            100                                          1   2   3     ?
                                 last hour: (125 .................., 185]

    Feast 0.66 (tiles): max 103, min 101, std 2.0.
    """
    with replay(LastHour) as t:
        t.send([paid("00:01", 100.0), paid("03:01", 1.0), paid("03:02", 2.0), paid("03:03", 3.0)])
        t.at("03:05")
        assert t.get(user="u") == {"total": 6.0, "count": 3, "mean": 2.0, "most": 3.0, "least": 1.0, "std": 1.0}


def test_a_late_event_enters_its_own_time_and_not_the_present() -> None:
    """
    minute  0     5                           120
            10   (100, arrives last)            1
                          last hour: (60 ..., 120]

    River's TimeRolling: 101.
    """
    with replay(LastHour) as t:
        t.send([paid("00:00", 10.0), paid("02:00", 1.0), paid("00:05", 100.0)])
        assert not t.dead
        assert t.get(user="u")["total"] == 1.0
        log = {row["event_timestamp"].strftime("%H:%M"): row["total"] for row in t.log(tail=True)}
        assert log == {"00:00": 10.0, "00:05": 110.0, "01:00": 100.0, "01:05": 0.0, "02:00": 1.0, "03:00": 0.0}


def test_a_window_that_has_emptied_is_empty() -> None:
    """
    minute  0            60 61
            5             |  ?

    Feast keeps count 1, sum 5 and max 5 for ever.
    """
    with replay(LastHour) as t:
        t.send(paid("00:00", 5.0))
        t.at("01:00")
        row = t.get(user="u")
        assert (row["count"], row["total"], row["most"]) == (0, 0.0, None)
        assert row.status["most"] == "NULL"
        assert row.status["total"] == "PRESENT"


class Last(FeatureView, source=payments, entity=user):
    """Sums that cancel, and squares that would."""

    total = Payment.amount.sum(last="1h", exact=True)
    var = Payment.amount.var(last="1h", exact=True)
    std = Payment.amount.std(last="1h", exact=True)


def test_small_differences_between_huge_values_survive() -> None:
    """Sums of squares would give a variance of 0 or of 1e14 here."""
    with replay(Last) as t:
        t.send([paid("00:00", 1e15), paid("00:01", 1e15 + 1), paid("00:02", 1e15 + 2)])
        assert (t.get(user="u")["var"], t.get(user="u")["std"]) == (1.0, 1.0)


def test_a_huge_value_that_has_left_leaves_nothing_behind() -> None:
    """A running sum that subtracts what leaves would keep the rounding of 1e17: 0.0 or 16.0 in place of 0.1."""
    with replay(Last) as t:
        t.send([paid("00:00", 1e17), paid("00:30", 0.1)])
        assert t.get(user="u")["total"] == 1e17 + 0.1
        t.at("01:00")
        assert t.get(user="u")["total"] == 0.1
