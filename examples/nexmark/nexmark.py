"""Questions to an auction house while it sells: queries 1 to 8 and 11 of Nexmark as one flow.

python nexmark.py        replays 20,000 events through all of them: README.md shows what it prints
"""

import importlib.util
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from headrace import Event, EventTime, Flow, FrameSource, run
from headrace.features import Hopping, Session, Stream, Tumbling

spec = importlib.util.spec_from_file_location("nexmark_generate", Path(__file__).with_name("generate.py"))
assert spec is not None
assert spec.loader is not None
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

EUROS = 0.89
Rows = list[dict[str, Any]]


class Person(Event):
    id: int
    name: str
    city: str
    state: str
    at: EventTime


class Auction(Event):
    id: int
    seller: int
    category: int
    reserve: int
    expires: datetime
    at: EventTime


class Bid(Event):
    auction: int
    bidder: int
    price: int
    at: EventTime


class Converted(Event):
    auction: int
    euros: float
    at: EventTime


class Item(Event):
    auction: int
    name: str
    city: str
    state: str
    at: EventTime


class Offer(Event):
    """A bid that came while the auction was open; its instant is the one at which the auction closes."""

    auction: int
    category: int
    seller: int
    price: int
    at: EventTime


class Mean(Event):
    of: int
    price: float
    at: EventTime


class Count(Event):
    """Bids of an auction in a window. all: the same for everybody, to compare them by."""

    auction: int
    bids: int
    all: bool
    at: EventTime


class Hot(Event):
    auctions: str
    bids: int
    at: EventTime


class Seller(Event):
    id: int
    name: str
    window: datetime
    at: EventTime


class Visit(Event):
    bidder: int
    bids: int
    window_start: datetime
    window_end: datetime
    at: EventTime


def converted(bid: Bid) -> dict[str, Any]:
    return {"auction": bid.auction, "euros": bid.price * EUROS}


def item(auction: Auction, seller: Person) -> dict[str, Any] | None:
    if auction.category != 10 or seller.state not in ("OR", "ID", "CA"):
        return None
    return {"auction": auction.id, "name": seller.name, "city": seller.city, "state": seller.state}


def offer(bid: Bid, auction: Auction) -> dict[str, Any] | None:
    """The bid, told at the end of the auction, if it came before."""
    if not auction.at <= bid.at <= auction.expires:
        return None
    return {"auction": auction.id, "category": auction.category, "seller": auction.seller, "price": bid.price,
            "at": auction.expires}  # fmt: skip


def higher(one: Any, two: Any) -> Any:
    return two if two.price > one.price else one


def mean_of_all(state: tuple[int, int] | None, closed: Offer) -> tuple[tuple[int, int], dict[str, Any]]:
    count, total = state or (0, 0)
    count, total = count + 1, total + closed.price
    return (count, total), {"of": closed.category, "price": total / count}


def mean_of_ten(state: Sequence[int] | None, closed: Offer) -> tuple[list[int], dict[str, Any]]:
    last = [*(state or ()), closed.price][-10:]
    return last, {"of": closed.seller, "price": sum(last) / len(last)}


def hottest(state: tuple[int, tuple[int, ...]], count: Count) -> tuple[int, tuple[int, ...]]:
    most, auctions = state
    if count.bids > most:
        return count.bids, (count.auction,)
    return (most, (*auctions, count.auction)) if count.bids == most else state


def hot(state: tuple[int, tuple[int, ...]]) -> dict[str, Any]:
    return {"auctions": " ".join(map(str, sorted(state[1]))), "bids": state[0]}


def same_window(person: Person, auction: Auction) -> dict[str, Any] | None:
    """A person who came and sold in the same ten seconds; a window begins behind its start and has its end."""
    windows = [-(-int(each.at.timestamp() * 1_000_000) // 10_000_000) for each in (person, auction)]
    if windows[0] != windows[1]:
        return None
    return {"id": person.id, "name": person.name, "window": datetime.fromtimestamp(10 * windows[0], person.at.tzinfo)}


def once(known: datetime | None, seller: Seller) -> tuple[datetime, dict[str, Any] | None]:
    return seller.window, None if known == seller.window else vars(seller)


def asked(persons: Any, auctions: Any, bids: Any, lateness: str = "0s") -> tuple[Flow, dict[str, Stream]]:
    """A flow over three tables, with the stream of answers to each query."""
    flow = Flow("nexmark")
    person = flow.read(FrameSource(persons, Person, name="persons", lateness=lateness))
    auction = flow.read(FrameSource(auctions, Auction, name="auctions", lateness=lateness))
    bid = flow.read(FrameSource(bids, Bid, name="bids", lateness=lateness))

    # 4 and 6 ask what an auction brought: the highest bid before its end, known when it closes.
    offers = bid.key_by("auction").join(auction.key_by("id"), offer, within="13s", gives=Offer, name="offers")
    closed = offers.key_by("auction").reduce(higher, Tumbling("1ms"), name="closed")
    counts = bid.key_by("auction").fold(
        lambda state, row: (row.auction, state[1] + 1), Hopping("10s", hop="2s"), initial=lambda: (0, 0),
        finish=lambda state: {"auction": state[0], "bids": state[1], "all": True}, gives=Count, name="counts",
    )  # fmt: skip
    both = person.key_by("id").join(auction.key_by("seller"), same_window, within="10s", gives=Seller, name="came")
    return flow, {
        "1 prices in euros": bid.map_rows(converted, gives=Converted),
        "2 bids on some auctions": bid.filter(lambda row: row.auction % 123 == 0, name="some"),
        "3 who sells nearby": auction.key_by("seller").lookup(
            person.key_by("id"), item, how="inner", gives=Item, name="nearby"
        ),
        "4 mean price by category": closed.key_by("category").stateful(mean_of_all, gives=Mean),
        "5 hot items": counts.key_by("all").fold(
            hottest, Tumbling("2s"), initial=lambda: (0, ()), finish=hot, gives=Hot, name="hot"
        ),
        "6 mean of ten by seller": closed.key_by("seller").stateful(mean_of_ten, gives=Mean),
        "7 highest bid": bid.map_rows(lambda row: {**vars(row), "bidder": 0}, name="any_bidder")
        .key_by("bidder")
        .reduce(higher, Tumbling("10s"), name="highest"),
        "8 new sellers": both.key_by("id").stateful(once, gives=Seller, name="new_sellers"),
        "11 visits of bidders": bid.key_by("bidder").fold(
            lambda state, row: (row.bidder, state[1] + 1), Session("10s"), initial=lambda: (0, 0),
            finish=lambda state: {"bidder": state[0], "bids": state[1]}, gives=Visit, name="visits",
        ),
    }  # fmt: skip


def main(data: Path) -> None:
    tables = generate.made()
    flow, answers = asked(*tables)
    found = {name: stream.collect() for name, stream in answers.items()}
    run([flow], data)
    persons, auctions, bids = (len(table) for table in tables)
    print(f"{persons:,} persons, {auctions:,} auctions, {bids:,} bids\n")
    print(f"{'query':<26}{'rows':>7}  the last of them")
    for name, rows in found.items():
        last = {key: value for key, value in rows[-1].items() if not isinstance(value, datetime)}
        shown = "  ".join(
            f"{key} {value:,.2f}" if isinstance(value, float) else f"{key} {value}" for key, value in last.items()
        )
        print(f"{name:<26}{len(rows):>7,}  {shown}")


# What `headrace graph` and `headrace run` find.
flow, _ = asked(*generate.made(2_000))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
