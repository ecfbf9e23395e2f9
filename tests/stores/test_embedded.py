"""The embedded store keeps the rules of online stores, across processes, kill -9, fork and growth."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from headrace.stores.embedded import EmbeddedStore
from headrace.stores.environment import LOOK_EVERY_S
from headrace.stores.errors import CorruptError, MissingStoreError, StoreError
from headrace.stores.testing import LastingStoreSuite, PositionedStoreSuite, Visits, row, rows_of

SRC = Path(__file__).parents[2] / "src"


class TestEmbeddedStore(PositionedStoreSuite, LastingStoreSuite):
    def open(self, place: Path) -> EmbeddedStore:
        return EmbeddedStore(place)

    def again(self, store: EmbeddedStore) -> EmbeddedStore:
        return EmbeddedStore(store.path)

    def forget(self, store: EmbeddedStore) -> None:
        def everything(txn: Any) -> None:
            with txn.cursor() as cursor:
                more = cursor.first()
                while more:
                    more = cursor.delete()

        store._environment().run(everything, write=True)


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Another Python that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(SRC)},
        stdout=subprocess.PIPE,
        text=True,
    )


WRITER = """
    import sys
    from headrace.stores.embedded import EmbeddedStore
    from headrace.stores.testing import AT, Visits, row, rows_of
    store = EmbeddedStore(sys.argv[1])
    number = 0 if store.clock() is None else store.clock().us - AT
    while True:
        number += 1
        users = [{"user": f"u{i}"} for i in range(200)]
        store.write(Visits, rows_of(Visits, [(user, row(number, visits=number)) for user in users]))
        store.set_clock(AT + number, "stream")
        print(number, flush=True)
"""


def test_a_second_process_reads_while_one_writes_and_is_killed(tmp_path: Path) -> None:
    """Each batch gives 200 users one number. A reader never sees two numbers; after SIGKILL nothing acknowledged is
    lost."""
    users = [{"user": f"u{i}"} for i in range(200)]
    newest = 0
    for _ in range(3):
        writer = python(WRITER, tmp_path)
        assert writer.stdout is not None
        first = int(writer.stdout.readline())
        assert first >= newest  # equal when the last kill came between a batch and its clock
        with EmbeddedStore(tmp_path, read_only=True) as store:
            for _ in range(30):
                clock = store.clock()
                seen = {each.values["visits"] for each in store.read(Visits, users) if each is not None}
                assert len(seen) == 1
                assert clock is not None
                assert seen.pop() >= clock.us - 1_767_225_600_000_000
        os.kill(writer.pid, signal.SIGKILL)
        acknowledged = [int(line) for line in writer.stdout.read().split()][-1:] or [first]
        writer.stdout.close()
        writer.wait()
        with EmbeddedStore(tmp_path, read_only=True) as store:
            found = {each.values["visits"] for each in store.read(Visits, users) if each is not None}
            assert len(found) == 1
            newest = found.pop()
            assert newest >= acknowledged[0]


def test_a_reader_killed_in_the_middle_of_a_read_does_not_hold_pages_for_ever(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    store.write(Visits, rows_of(Visits, [({"user": f"u{i}"}, row(1)) for i in range(10)]))
    reader = python(
        """
        import sys, time
        from headrace.stores.embedded import EmbeddedStore
        from headrace.stores.testing import Visits
        rows = EmbeddedStore(sys.argv[1], read_only=True).scan(Visits)
        next(rows)
        print("reading", flush=True)
        time.sleep(60)
        """,
        tmp_path,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    os.kill(reader.pid, signal.SIGKILL)
    reader.stdout.close()
    reader.wait()
    assert store._environment().forget_dead_readers() == 1
    store.close()


ONCE = """
    import sys
    from headrace.stores.embedded import EmbeddedStore
    from headrace.stores.testing import Visits, row, rows_of
    with EmbeddedStore(sys.argv[1]) as store:
        store.write(Visits, rows_of(Visits, [({"user": "u"}, row(1, visits=int(sys.argv[2])))]))
"""


def test_a_reader_follows_a_folder_that_is_removed_and_made_anew(tmp_path: Path) -> None:
    """As `headrace run --fresh` does under a server. LMDB itself goes on reading the file that is gone."""

    def write(visits: int) -> None:
        writer = python(ONCE, tmp_path / "online", visits)
        assert writer.wait(60) == 0
        assert writer.stdout is not None
        writer.stdout.close()

    def seen() -> Any:
        (found,) = store.read(Visits, [{"user": "u"}])
        return None if found is None else found.values["visits"]

    write(7)
    with EmbeddedStore(tmp_path / "online", read_only=True) as store:
        assert seen() == 7
        shutil.rmtree(tmp_path / "online")
        time.sleep(LOOK_EVERY_S)
        assert seen() == 7  # until there is another
        write(1)
        time.sleep(LOOK_EVERY_S)
        assert seen() == 1


def test_it_grows_beyond_its_first_map_also_under_a_reader_of_another_process(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path, map_bytes=1 << 18)
    store.write(Visits, rows_of(Visits, [({"user": "first"}, row(1))]))
    reader = python(
        """
        import sys
        from headrace.stores.embedded import EmbeddedStore
        from headrace.stores.testing import Visits
        store = EmbeddedStore(sys.argv[1], read_only=True, map_bytes=1 << 18)
        assert len(list(store.scan(Visits))) == 1
        print("ready", flush=True)
        sys.stdin.readline()
        print(len(store.read(Visits, [{"user": "u1"}])), flush=True)
        print(len(list(store.scan(Visits))), flush=True)
        """.replace("sys.stdin.readline()", "import time; time.sleep(1.5)"),
        tmp_path,
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    store.write(Visits, rows_of(Visits, [({"user": f"u{i}"}, row(1)) for i in range(20_000)]))
    out, _ = reader.communicate(timeout=30)
    assert out.split() == ["1", "20001"]
    assert len(list(store.scan(Visits))) == 20_001
    store.close()


def test_a_forked_child_has_its_own_environment(tmp_path: Path) -> None:
    """A model server that loads its client before it forks its workers."""
    done = python(
        """
        import os, sys
        from headrace.stores.embedded import EmbeddedStore
        from headrace.stores.testing import Visits, row, rows_of
        store = EmbeddedStore(sys.argv[1])
        store.write(Visits, rows_of(Visits, [({"user": "a"}, row(1))]))
        child = os.fork()
        if not child:
            assert store.read(Visits, [{"user": "a"}]) == [row(1)]
            store.write(Visits, rows_of(Visits, [({"user": "a"}, row(2))]))
            store.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(store.read(Visits, [{"user": "a"}]) == [row(2)])
        """,
        tmp_path,
    )
    out, _ = done.communicate(timeout=30)
    assert out == "True\n"


def test_a_reader_opened_first_does_not_hinder_a_writer_of_the_same_process(tmp_path: Path) -> None:
    EmbeddedStore(tmp_path).close()
    reader = EmbeddedStore(tmp_path, read_only=True)
    assert reader.read(Visits, [{"user": "a"}]) == [None]
    writer = EmbeddedStore(tmp_path)
    writer.write(Visits, rows_of(Visits, [({"user": "a"}, row(1))]))
    assert reader.read(Visits, [{"user": "a"}]) == [row(1)]
    with pytest.raises(StoreError, match="read_only=True"):
        reader.set_clock(1, "wall")
    writer.close()
    assert reader.read(Visits, [{"user": "a"}]) == [row(1)]
    reader.close()


def test_one_process_flushes_one_way(tmp_path: Path) -> None:
    with EmbeddedStore(tmp_path, durable=False) as store:
        store.write(Visits, rows_of(Visits, [({"user": "a"}, row(1))]))
        store.sync()
        with pytest.raises(StoreError, match="durable=False"):
            EmbeddedStore(tmp_path)


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingStoreError, match="Run a flow that writes it first"):
        EmbeddedStore(tmp_path / "nothing", read_only=True)
    assert not (tmp_path / "nothing").exists()
    store = EmbeddedStore(tmp_path / "closed")
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.clock()
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(CorruptError, match="Remove the folder and fill it again"):
        EmbeddedStore(tmp_path / "torn")
