"""Where is the market? An exchange's order book kept from its updates: best bid and ask, spread, and who presses.

python orderbook.py      replays ten minutes of two pairs: README.md shows what it prints
"""

import tempfile
from pathlib import Path

from headrace import Client, EmbeddedStore, Entity, Event, EventTime, FeatureView, FileSource, Flow, OfflineLog, run

HERE = Path(__file__).parent
LEVELS = 5
"""So many prices on either side count as pressure."""


class Update(Event):
    pair: str
    side: str
    price: float
    size: float
    at: EventTime


class Quote(Event):
    pair: str
    bid: float
    ask: float
    imbalance: float
    at: EventTime


class Book:
    """What is offered of one pair, by price: an object for each key, kept in the checkpoint with what is in it."""

    def __init__(self) -> None:
        self.bid: dict[float, float] = {}
        self.ask: dict[float, float] = {}

    def on_event(self, update: Update) -> dict[str, object] | None:
        """A quote, once both sides are there."""
        levels = self.bid if update.side == "bid" else self.ask
        if update.size:
            levels[update.price] = update.size
        else:
            levels.pop(update.price, None)
        if not self.bid or not self.ask or max(self.bid) >= min(self.ask):  # a trade is being told, level by level
            return None
        bids = sum(self.bid[price] for price in sorted(self.bid, reverse=True)[:LEVELS])
        asks = sum(self.ask[price] for price in sorted(self.ask)[:LEVELS])
        imbalance = (bids - asks) / (bids + asks)
        return {"pair": update.pair, "bid": max(self.bid), "ask": min(self.ask), "imbalance": imbalance}


flow = Flow("orderbook")
updates = flow.read(FileSource(HERE / "updates.parquet", Update, name="updates", lateness="1s"))
quotes = updates.key_by("pair").stateful(Book, gives=Quote, name="quotes")


class Market(FeatureView, source=quotes, entity=Entity("pair", key="pair")):
    bid = Quote.bid.last(last="1m")
    ask = Quote.ask.last(last="1m")
    spread_1m = (Quote.ask - Quote.bid).mean(last="1m")
    imbalance_30s = Quote.imbalance.mean(last="30s")
    high_5m = Quote.bid.max(last="5m")
    low_5m = Quote.bid.min(last="5m")


def main(data: Path) -> None:
    summary = run([Market], data)
    print(f"{summary.read['updates']:,} updates, {summary.given['orderbook.quotes']:,} quotes")

    rows = OfflineLog(data / "log").scan(Market, [{"pair": "BTC-EUR"}]).to_pandas()
    rows = rows.dropna(subset=["imbalance_30s"])
    by_minute = rows.groupby(rows["event_timestamp"].dt.strftime("%H:%M")).last()
    print("\nBTC-EUR, minute by minute:")
    for minute, row in by_minute.iloc[:10].iterrows():
        pressed = round(row["imbalance_30s"] * 10)
        bar = f"{'<' * -pressed:>10}|{'>' * pressed:<10}"
        print(f"  {minute}  {row['bid']:,.0f} / {row['ask']:,.0f}  sellers {bar} buyers")

    print("\nNow:")
    client = Client(EmbeddedStore(data / "online", read_only=True))
    for pair in ("BTC-EUR", "ETH-EUR"):
        now = client.get(Market, pair=pair)
        print(
            f"  {pair}  {now['bid']:,.2f} / {now['ask']:,.2f}  spread {now['spread_1m']:.2f}"
            f"  from {now['low_5m']:,.2f} to {now['high_5m']:,.2f} in 5 minutes"
        )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
