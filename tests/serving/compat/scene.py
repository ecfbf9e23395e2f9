"""Drawn rows in a log and, by it, in an online store."""

from itertools import count
from pathlib import Path
from typing import Any

from tests.serving.compat.rows import ENTITIES, NOW, Drawn, Told, key_of, python_value, stored, told
from tests.serving.compat.views import VIEWS
from tests.serving.compat.ways import Answer

from headrace.materialize.online import sync
from headrace.stores.layout import row_layout
from headrace.stores.offline import OfflineLog
from headrace.stores.online import OnlineStore
from headrace.stores.rows import table_of

_TURN = count(1)

PAIRS = [(user, shop) for user in range(ENTITIES + 1) for shop in range(ENTITIES + 1)]


class Scene:
    """Drawn rows in a log and, by it, in an online store; entities are of names that no scene before had."""

    def __init__(self, folder: Path, rows: list[Drawn]) -> None:
        turn = next(_TURN)
        self.rows = rows
        self.users = [f"ü{turn}-{at}" for at in range(ENTITIES + 1)]
        self.shops = [-(turn * 10 + at) for at in range(ENTITIES + 1)]
        self.log = OfflineLog(folder)
        for view in VIEWS:
            of = sorted((row for row in rows if row.view == view.name), key=lambda row: -row.before)
            keys = [key_of(view.name, self.users[row.user], self.shops[row.shop]) for row in of]
            self.log.append(view, table_of(row_layout(view), keys, [stored(row) for row in of]))
        self.log.commit()

    def fill(self, store: OnlineStore) -> None:
        """Write the newest rows to a store, and set its clock to NOW."""
        sync(store, VIEWS, log=self.log, at_us=NOW)

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    @property
    def entities(self) -> dict[str, list[Any]]:
        return {"user": [self.users[user] for user, _ in PAIRS], "shop": [self.shops[shop] for _, shop in PAIRS]}

    def expected(self) -> Answer:
        """By the oracle."""
        found = {}
        for view in VIEWS:
            for name in view.feature_names():
                cells = [told(self.rows, view.name, name, user, shop) for user, shop in PAIRS]
                dtype = view.dtypes[name]
                found[f"{view.name}__{name}"] = [
                    Told(python_value(cell.value, dtype), cell.status, cell.event_time) for cell in cells
                ]
        return found
