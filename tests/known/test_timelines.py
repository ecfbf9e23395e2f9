"""One timeline per kind of window, drawn above its assertions; then order, ties, lateness and reading."""

from headrace.features import (
    Entity,
    FeatureView,
    Hopping,
    IterableSource,
    LastN,
    Lifetime,
    Session,
    Sliding,
    Tumbling,
    define,
    derived,
)
from headrace.testing import Replay, replay
from tests.known.payments import Payment, paid, patient, payments, user


def counting(window: object, source: IterableSource = payments, **more: object) -> Replay:
    return replay(define("counting", source=source, entity=user, features={"n": Payment.count(over=window)}, **more))


def at(t: Replay, *times: str) -> list[int]:
    """`n` of user u at each time."""
    out = []
    for time in times:
        t.at(time)
        out.append(t.get(user="u")["n"])
    return out


def rows(t: Replay) -> list[tuple[str, int]]:
    return [(row["event_timestamp"].strftime("%H:%M:%S"), row["n"]) for row in t.log(tail=True)]


def test_sliding_by_hop() -> None:
    """
    minute  0    5    10   15   20   25   30
    event      *    *
               2    7
    tiles   (0   5](5  10](10 15](15 20](20 25]
    W 20:   at 22 the window is (floor((22 - 20) / 5) * 5, 22] = (0, 22]: both, the first up to 3 minutes too old
            at 25 it is (5, 25]: tile (0, 5] has left; at 30 it is (10, 30]
    """
    with counting(Sliding("20m", hop="5m")) as t:
        t.send([paid("00:02"), paid("00:07")])
        assert at(t, "00:07", "00:22", "00:24:59.999999", "00:25", "00:29:59.999999", "00:30") == [2, 2, 2, 1, 1, 0]
        assert rows(t) == [("00:02:00", 1), ("00:07:00", 2), ("00:25:00", 1), ("00:30:00", 0)]


def test_an_event_on_the_edge_of_a_tile_belongs_to_the_tile_that_ends_there() -> None:
    """
    minute  0    5    10        25   30
    event        *              |    |
                 5.000000 -> tile (0, 5], leaves at 25
                 5.000001 -> tile (5, 10], leaves at 30
    """
    with counting(Sliding("20m", hop="5m")) as t:
        t.send([paid("00:05:00"), paid("00:05:00.000001")])
        assert at(t, "00:24:59.999999", "00:25", "00:30") == [2, 1, 0]


def test_sliding_exactly() -> None:
    """
    minute  2         7                   22        27
    event   *         *                   |         |
            at 22 the window is (2, 22]: an event at its open start is out, to the microsecond
    """
    with counting(Sliding("20m", exact=True)) as t:
        t.send([paid("00:02"), paid("00:07")])
        assert at(t, "00:21:59.999999", "00:22", "00:26:59.999999", "00:27") == [2, 1, 1, 0]
        assert rows(t) == [("00:02:00", 1), ("00:07:00", 2), ("00:22:00", 1), ("00:27:00", 0)]


def test_tumbling() -> None:
    """
    minute  0       10      20      30
    event     *  *   *  *   |       |
              2  5   11 20  20 belongs to (10, 20]
    at 10 ... (0, 10] = 2       at 20 ... (10, 20] = 2      at 30 ... (20, 30] = 0
    """
    with counting(Tumbling("10m")) as t:
        t.send([paid("00:02"), paid("00:05")])
        assert at(t, "00:09:59", "00:10") == [0, 2]
        t.send([paid("00:11"), paid("00:20")])
        assert at(t, "00:20", "00:29:59", "00:30") == [2, 2, 0]
        assert rows(t) == [
            ("00:02:00", 0),
            ("00:05:00", 0),
            ("00:10:00", 2),
            ("00:11:00", 2),
            ("00:20:00", 2),
            ("00:30:00", 0),
        ]


def test_tumbling_while_it_fills() -> None:
    """
    minute  0       10      20
    event     *  *  *   *
              2  5  10  11
    at 9 ... (0, 9] = 2     at 10 ... (10, 10] is empty, though an event came at 10     at 11 ... (10, 11] = 1
    """
    with counting(Tumbling("10m", current=True)) as t:
        t.send([paid("00:02"), paid("00:05")])
        assert at(t, "00:09") == [2]
        t.send(paid("00:10"))
        assert at(t, "00:10") == [0]
        t.send(paid("00:11"))
        assert at(t, "00:11", "00:20") == [1, 0]


def test_hopping() -> None:
    """
    minute  0    5    10   15   20   25
    event     *    *    *
              2    7    12
    W 10, hop 5: b is the last multiple of 5
    at  9 ... b =  5: (-5, 5] = 1     at 14 ... b = 10: (0, 10] = 2
    at 19 ... b = 15: (5, 15] = 2     at 24 ... b = 20: (10, 20] = 1     at 25 ... (15, 25] = 0
    """
    with counting(Hopping("10m", hop="5m")) as t:
        t.send([paid("00:02"), paid("00:07")])
        assert at(t, "00:09") == [1]
        t.send(paid("00:12"))
        assert at(t, "00:14", "00:19", "00:24", "00:25") == [2, 2, 1, 0]


def test_session() -> None:
    """
    minute  0  4  8      13                 gap 5
    event   *--*--*      *
                    ^12:59 open: 8 lies in (7:59, 12:59]
                     ^13 closed, and 13 is 5 after 8: a session of its own
    """
    with counting(Session("5m")) as t:
        t.send([paid("00:00"), paid("00:04"), paid("00:08")])
        assert at(t, "00:08", "00:12:59") == [3, 3]
        t.send(paid("00:13"))
        assert at(t, "00:13", "00:17:59", "00:18") == [1, 1, 0]


def test_a_late_event_joins_two_sessions() -> None:
    """
    minute  0     4     8                   gap 5
    event   *           *                   two sessions, 8 apart
            *-----*-----*                   then 4 arrives: one
    """
    with counting(Session("5m"), patient) as t:
        t.send([paid("00:00"), paid("00:08")])
        assert at(t, "00:08") == [1]
        t.send(paid("00:04"))
        assert at(t, "00:08") == [3]


def test_the_last_n_events() -> None:
    """
    minute  0  1  2  3     4 (null)
    amount  1  2  4  8     the 3 newest: 2+4+8, then 4+8 and a row without amount
    """
    view = define("three", source=payments, entity=user, features={"total": Payment.amount.sum(over=LastN(3))})
    with replay(view) as t:
        t.send([paid(f"00:0{i}", 2.0**i) for i in range(4)])
        assert t.get(user="u")["total"] == 14.0
        t.send(paid("00:04", None))
        assert t.get(user="u")["total"] == 12.0
        t.at("23:59")
        assert t.get(user="u")["total"] == 12.0


def test_lifetime_and_the_order_of_events() -> None:
    """
    minute  0        1                2       partition 0: a at 1, offset 0; c at 1, offset 1
    shop    -        a, b, c          -       partition 1: b at 1, offset 0
                     first = a; last = b: partition 1 comes after partition 0 at one instant
    """
    features = {
        "first": Payment.shop.first(over=Lifetime()),
        "last": Payment.shop.last(over=Lifetime()),
        "two": Payment.shop.last_n(2, over=Lifetime()),
    }
    with replay(define("order", source=patient, entity=user, features=features)) as t:
        t.send(paid("00:01", shop="b"), partition=1)
        t.send([paid("00:01", shop="a"), paid("00:01", shop="c"), paid("00:00"), paid("00:02")])
        assert t.get(user="u") == {"first": "a", "last": "b", "two": ["c", "b"]}


def test_a_window_that_ended_a_while_ago() -> None:
    """
    minute  0    10   20   30   40
    event   *         |    |            ending 20: at t the window is (t - 20 - 10, t - 20]
            enters at 20, leaves at 30
    """
    with counting(Sliding("10m", exact=True, ending="20m ago")) as t:
        t.send(paid("00:00"))
        assert at(t, "00:19:59", "00:20", "00:29:59", "00:30") == [0, 1, 1, 0]
        assert rows(t) == [("00:00:00", 0), ("00:20:00", 1), ("00:30:00", 0)]


def test_time_before_1970() -> None:
    """
    1969-12-31  23:59:58       1970-01-01 00:00:00      00:00:03
    event       *              *
    hop 2 s     tile (-4, -2]  tile (-2, 0]             W 4 s: at 3 s (-2, 3], at 4 s (0, 4]
    """
    with counting(Sliding("4s", hop="2s")) as t:
        t.send([paid("1969-12-31T23:59:58Z"), paid("1970-01-01T00:00:00Z")])
        times = ("1970-01-01T00:00:01Z", "1970-01-01T00:00:02Z", "1970-01-01T00:00:03Z", "1970-01-01T00:00:04Z")
        assert at(t, *times) == [2, 1, 1, 0]


def test_lateness_keeps_the_log_open_and_then_closes_it() -> None:
    """
    minute     0     50    60   70             lateness 10
    arrival    1st   3rd   2nd  4th
    watermark  -10   50    50   60             3rd stands exactly on the watermark and counts; at 49:59 it would not
    """
    source = IterableSource([], Payment, lateness="10m")
    with counting(Sliding("2h", exact=True), source) as t:
        t.send([paid("00:00"), paid("01:00"), paid("00:50")])
        assert at(t, "01:00") == [3]
        assert [row["n"] for row in t.log()] == [1]
        t.send([paid("00:49:59"), paid("01:10")])
        assert [letter.reason for letter in t.dead] == ["late"]
        assert [row["n"] for row in t.log()] == [1, 2]
        assert [row["n"] for row in t.log(tail=True)][:4] == [1, 2, 3, 4]


def test_partitions_judge_their_own_lateness_and_hold_the_log_together() -> None:
    """
    minute         0    10   20   30
    partition 0    *         *    *        watermark 30
    partition 1      *    *                watermark 12: the log has settled up to there, and 12 itself not yet
                     2    12
    """
    with counting(Lifetime()) as t:
        t.send(paid("00:00"), partition=0)
        t.send(paid("00:02"), partition=1)
        t.send([paid("00:20"), paid("00:30")], partition=0)
        t.send(paid("00:12"), partition=1)
        assert not t.dead
        assert [row["event_timestamp"].minute for row in t.log()] == [0, 2]
        t.send(paid("00:05"), partition=1)
        assert [letter.reason for letter in t.dead] == ["late"]


def test_a_silent_partition_stops_holding_the_log_back() -> None:
    """
    minute         0    5         12        idle after 10
    partition 0         *         *         at 12 partition 1 has been silent for 12: the watermark is 12
    partition 1    *                        what it sends afterwards for 8 is behind the settled log; for 12 it is not
    """
    source = IterableSource([], Payment, idle_after="10m")
    with counting(Lifetime(), source) as t:
        t.send(paid("00:00"), partition=1)
        t.send(paid("00:05"), partition=0)
        assert rows_settled(t) == []
        t.send(paid("00:12"), partition=0)
        assert rows_settled(t) == [0, 5]
        t.send([paid("00:08"), paid("00:12")], partition=1)
        assert [(letter.reason, letter.offset) for letter in t.dead] == [("behind settled log", 1)]
        assert at(t, "00:12") == [4]


def rows_settled(t: Replay) -> list[int]:
    return [row["event_timestamp"].minute for row in t.log()]


def test_an_event_of_the_far_future_moves_nothing() -> None:
    """
    minute     0         5       70         max_ahead 1 h
    arrival    1st       3rd     2nd: 70 after the newest event, refused; the 3rd is in time
    """
    source = IterableSource([], Payment, max_ahead="1h")
    with counting(Lifetime(), source) as t:
        t.send([paid("00:00"), paid("01:10"), paid("00:05")])
        assert [letter.reason for letter in t.dead] == ["ahead"]
        assert at(t, "00:05") == [2]
        t.at("00:10")
        t.send(paid("01:10"))
        assert at(t, "01:10") == [3]


def test_an_event_told_twice_counts_once() -> None:
    """
    minute     0     1     1            20           lateness 5
    id         p     q     p again      p again: forgotten, as the first p could no longer come
    """
    source = IterableSource([], Payment, lateness="5m", dedup="shop")
    with counting(Lifetime(), source) as t:
        t.send([paid("00:00", shop="p"), paid("00:01", shop="q"), paid("00:01", shop="p")])
        assert (t.duplicates, at(t, "00:01")) == (1, [2])
        t.send([paid("00:20", shop=None), paid("00:20", shop="p")])
        assert (t.duplicates, at(t, "00:20")) == (1, [4])


class Reading(FeatureView, source=payments, entity=user, ttl="1h"):
    """What a reader gets beyond the row."""

    n = Payment.count(last="30m", exact=True)
    most = Payment.amount.max(last="30m", exact=True)
    known = Payment.amount.max(last="30m", exact=True, default=-1.0)
    glow = Payment.amount.decayed_sum(half_life="10m")
    share = derived(Payment.count(last="30m", exact=True, where=Payment.shop == "x") / n)


def test_reading_decay_ttl_and_statuses() -> None:
    """
    minute  0         10        30         60
    event   8 (x)     |         |          |
    glow    8         4         1          past ttl: as if never seen
    n       1         1         0          0
    """
    with replay(Reading) as t:
        nobody = t.get(user="u")
        assert nobody == {"n": 0, "most": None, "known": -1.0, "glow": None, "share": None}
        assert set(nobody.status.values()) == {"NOT_FOUND"}
        t.send(paid("00:00", 8.0, "x"))
        t.at("00:10")
        assert t.get(user="u") == {"n": 1, "most": 8.0, "known": 8.0, "glow": 4.0, "share": 1.0}
        t.at("00:30")
        row = t.get(user="u")
        assert row == {"n": 0, "most": None, "known": -1.0, "glow": 1.0, "share": None}
        assert row.status == {
            "n": "PRESENT",
            "most": "NULL",
            "known": "DEFAULT",
            "glow": "PRESENT",
            "share": "NULL",
        }
        t.at("00:59:59.999999")
        assert set(t.get(user="u").status.values()) == {"PRESENT", "NULL", "DEFAULT"}
        t.at("01:00")
        row = t.get(user="u")
        assert row == nobody
        assert set(row.status.values()) == {"OUTSIDE_MAX_AGE"}


def test_maps_by_a_column() -> None:
    """
    minute  0     1     2     3     4
    shop    x 1   y 2   x 3   null  z 5     by shop: x has two rows, y and z one each; the null shop is in no bucket
    """
    features = {
        "total": Payment.amount.sum(over=Lifetime(), by=Payment.shop),
        "most": Payment.count(over=Lifetime(), by=Payment.shop, top=2),
    }
    with replay(define("maps", source=payments, entity=user, features=features)) as t:
        shops = zip(["x", "y", "x", None, "z"], [1.0, 2.0, 3.0, 4.0, 5.0], strict=True)
        t.send([paid(f"00:0{i}", amount, shop) for i, (shop, amount) in enumerate(shops)])
        row = t.get(user="u")
        assert row["total"] == {"x": 4.0, "y": 2.0, "z": 5.0}
        assert list(row["most"].items()) == [("x", 2), ("y", 1)]


def test_quantiles_are_the_nearest_rank() -> None:
    """0.55 * 20 is 11, in decimal: the 11th of 1..20. In binary the product of some such pairs is a little more."""
    qs = (0.0, 0.05, 0.55, 0.56, 1.0)
    features = {f"q{i}": Payment.amount.quantile(q, error=0.001, over=Lifetime()) for i, q in enumerate(qs)}
    with replay(define("ranks", source=payments, entity=user, features=features)) as t:
        t.send([paid(f"00:{i:02}", float(i)) for i in range(1, 21)])
        assert [round(value) for value in t.get(user="u").values()] == [1, 1, 11, 12, 20]


def test_an_entity_of_two_keys() -> None:
    pair = Entity("user_at_shop", keys=["user", "shop"])
    view = define("pairs", source=payments, entity=pair, features={"n": Payment.count(over=Lifetime())})
    with replay(view) as t:
        t.send([paid("00:00", shop="x"), paid("00:01", shop="y"), paid("00:02", shop="x")])
        assert [t.get(user="u", shop=shop)["n"] for shop in ("x", "y", "z")] == [2, 1, 0]
