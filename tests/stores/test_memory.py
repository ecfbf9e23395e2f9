"""The store in memory keeps the rules of online stores."""

from pathlib import Path

from headrace.stores.memory import MemoryStore
from headrace.stores.testing import PositionedStoreSuite


class TestMemoryStore(PositionedStoreSuite):
    def open(self, place: Path) -> MemoryStore:
        return MemoryStore()

    def forget(self, store: MemoryStore) -> None:
        for kept in (store._layouts, store._rows, store._writers):
            kept.clear()
