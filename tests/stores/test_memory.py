"""The store in memory keeps the rules of online stores."""

from pathlib import Path

from headrace.stores.memory import MemoryStore
from headrace.stores.testing import OnlineStoreSuite


class TestMemoryStore(OnlineStoreSuite):
    def open(self, place: Path) -> MemoryStore:
        return MemoryStore()
