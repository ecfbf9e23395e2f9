"""Is this payment a fraud? Velocity features of cards, a model trained on them, and the same features when it decides.

python fraud.py          replays two weeks, trains on ten days, judges four and decides on two payments: README.md
                         shows what it prints
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score
from threadpoolctl import threadpool_limits

from headrace import (
    Client,
    EmbeddedStore,
    Entity,
    Event,
    EventTime,
    FeatureService,
    FeatureView,
    FileSource,
    OfflineLog,
    Request,
    derived,
    run,
    training_set,
)

HERE = Path(__file__).parent


class Payment(Event):
    card: str
    amount: float
    shop: str
    city: str
    at: EventTime


payments = FileSource(HERE / "payments.parquet", Payment)


class Card(FeatureView, source=payments, entity=Entity("card", key="card")):
    payments_10m = Payment.count(last="10m", exact=True)
    payments_1d = Payment.count(last="1d")
    spent_1h = Payment.amount.sum(last="1h")
    shops_1h = Payment.shop.distinct(last="1h")
    usual = Payment.amount.quantile(0.5, last="7d")
    city = Payment.city.last(last="7d")


class Shop(FeatureView, source=payments, entity=Entity("shop", key="shop")):
    usual = Payment.amount.quantile(0.5, last="7d")
    tiny_1d = (Payment.amount < 2).mean(last="1d", default=0.0)


amount, city = Request("amount", float), Request("city", str)
decision = FeatureService(
    "decision",
    [Card["payments_10m", "payments_1d", "spent_1h", "shops_1h"], Shop["tiny_1d"]],
    derived={
        "to_card": derived(amount / Card["usual"]),
        "to_shop": derived(amount / Shop["usual"]),
        "elsewhere": derived((city != Card["city"]), default=False),
    },
)
NAMES = ["payments_10m", "payments_1d", "spent_1h", "shops_1h", "tiny_1d", "to_card", "to_shop", "elsewhere"]


def main(data: Path) -> None:
    run([Card, Shop], data)

    # A payment is judged before it is made: at its own instant it would count itself.
    spine = pd.read_parquet(HERE / "payments.parquet")
    spine["event_timestamp"] = spine.pop("at") - pd.Timedelta(milliseconds=1)
    rows = training_set(spine, decision, log=OfflineLog(data / "log"), as_="pandas")
    early = spine["event_timestamp"] < "2026-03-12T00:00Z"
    print(f"{early.sum()} payments to learn from, {(~early).sum()} to be judged by, {spine['fraud'].mean():.1%} fraud")

    for what, names in (("amount alone", ["amount"]), ("with features", ["amount", *NAMES])):
        model = learnt(rows[early], names)
        risk = model.predict_proba(matrix(rows[~early], names))[:, 1]
        fraud = rows[~early]["fraud"].to_numpy()
        flagged = fraud[np.argsort(-risk, kind="stable")[: fraud.sum()]]
        print(f"  {what:<14} average precision {average_precision_score(fraud, risk):.2f}, caught {flagged.mean():.0%}")

    print("\nTwo payments of 180.00 at shop-3 in Metz, at the end of the last day:")
    client = Client(EmbeddedStore(data / "online", read_only=True), [decision])
    cards = ["card-12", "card-150"]
    asked = {"card": cards, "shop": ["shop-3"] * 2}
    table = client.features("decision", asked, request={"amount": [180.0] * 2, "city": ["Metz"] * 2})
    now = table.to_pandas().assign(amount=180.0)
    for card, row, risk in zip(cards, table.to_dicts(), model.predict_proba(matrix(now, names))[:, 1], strict=True):
        told = f"{row['shops_1h']} shops in an hour, {row['to_card']:4.1f} times its usual"
        print(f"  {card:<9} {told}: {'ask the owner' if risk > 0.5 else 'go ahead'}")


def learnt(rows: pd.DataFrame, names: Sequence[str]) -> HistGradientBoostingClassifier:
    model = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, early_stopping=False, random_state=0)
    with threadpool_limits(1, user_api="openmp"):
        return model.fit(matrix(rows, names), rows["fraud"].to_numpy())


def matrix(rows: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    return rows[list(names)].to_numpy(dtype=float, na_value=np.nan)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
