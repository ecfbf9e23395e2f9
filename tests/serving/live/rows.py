"""Rows whose values say whose they are: user `u7` has 7 visits and a total of 10.5, shop 3 a greatest amount of 0.75.

A question is a list of numbers of users; the shop and the amount that go with each follow from it. `judged` tells
whether an answer is that of the question and of no other.
"""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.serving.live.views import ByShop, ByUser

from headrace.features import FeatureView
from headrace.stores.layout import row_layout
from headrace.stores.online import OnlineStore, StoredRow
from headrace.stores.rows import table_of

USERS, SHOPS = 3000, 100
"""Users from here on have no row."""

Expected = dict[str, list[Any]]


def write(store: OnlineStore, shops_by: type[FeatureView] = ByShop) -> None:
    """All rows, as of now; those of shops as rows of `shops_by`."""
    now = time.time_ns() // 1000
    users = [({"user": f"u{at}"}, StoredRow({"visits": at, "total": at * 1.5}, now, now)) for at in range(USERS)]
    shops = [({"shop": at}, StoredRow({"most": at / 4}, now, now)) for at in range(SHOPS)]
    for view, rows in ((ByUser, users), (shops_by, shops)):
        store.write(view, table_of(row_layout(view), [key for key, _ in rows], [row for _, row in rows]))


def expected(numbers: Sequence[int]) -> Expected:
    """Name -> values of the answer, keys included."""
    known = [at < USERS for at in numbers]
    totals = [at * 1.5 if here else 0.0 for at, here in zip(numbers, known, strict=True)]
    return {
        "user": [f"u{at}" for at in numbers],
        "shop": [at % SHOPS for at in numbers],
        "visits": [at if here else 0 for at, here in zip(numbers, known, strict=True)],
        "total": totals,
        "most": [at % SHOPS / 4 for at in numbers],
        "above": [at + 0.25 - total for at, total in zip(numbers, totals, strict=True)],
    }


def request_of(numbers: Sequence[int]) -> Mapping[str, Any]:
    """The body of a request."""
    entities = {"user": [f"u{at}" for at in numbers], "shop": [at % SHOPS for at in numbers]}
    return {
        "feature_service": "checks",
        "entities": entities,
        "request": {"amount": [at + 0.25 for at in numbers]},
    }


def judged(numbers: Sequence[int], answer: bytes) -> str | None:
    """What is wrong with the answer of status 200 to the question; None: nothing."""
    found = json.loads(answer)
    names, results = found["metadata"]["feature_names"], found["results"]
    columns = dict(zip(names, results, strict=True))
    for name, values in expected(numbers).items():
        if columns[name]["values"] != values:
            return f"{name} of {list(numbers)[:5]}... is {columns[name]['values'][:5]}..., expected {values[:5]}..."
    statuses = ["PRESENT" if at < USERS else "NOT_FOUND" for at in numbers]
    if columns["visits"]["statuses"] != statuses:
        return f"statuses of {list(numbers)[:5]}... are {columns['visits']['statuses'][:5]}..."
    return None


def judged_without_shops(numbers: Sequence[int], answer: bytes) -> str | None:
    """What is wrong with the partial answer to the question when the rows of shops cannot be had; None: nothing."""
    found = json.loads(answer)
    columns = dict(zip(found["metadata"]["feature_names"], found["results"], strict=True))
    if list(found["metadata"].get("failures", ())) != ["by_shop"]:
        return f"the failures are {found['metadata'].get('failures')}, expected by_shop's"
    most, wanted = columns["most"], expected(numbers)
    if (most["values"], most["statuses"]) != ([None] * len(numbers), ["INVALID"] * len(numbers)):
        return f"most is {most}, expected null, INVALID"
    for name in ("visits", "total", "above"):
        if columns[name]["values"] != wanted[name]:
            return f"{name} of {list(numbers)[:5]}... is {columns[name]['values'][:5]}..."
    return None
