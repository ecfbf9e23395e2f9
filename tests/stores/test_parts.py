"""A log of several parts: each has one writer, readers see all, and a writer that was replaced commits nothing more."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.stores.logs import DAY, instants, private_files, visits

from headrace.features.errors import DataError
from headrace.stores.checkpoints import SnapshotPart, read_checkpoint
from headrace.stores.commits import parts, read_manifest
from headrace.stores.deadletters import dead_letter_table, read_dead_letters
from headrace.stores.errors import CorruptError, FencedError, LockedError, StoreError
from headrace.stores.layout import encode_layout, row_layout
from headrace.stores.offline import OfflineLog, remove_log
from headrace.stores.online import Clock
from headrace.stores.testing import AT, Visits


def letters(*offsets: int) -> Any:
    return dead_letter_table(
        [
            {
                "reason": "late",
                "detail": "",
                "source": "s",
                "partition": 0,
                "offset": at,
                "payload": "",
                "event_time_us": 1,
            }
            for at in offsets
        ]
    )


def test_readers_see_the_union_of_the_parts(tmp_path: Path) -> None:
    one, two = OfflineLog(tmp_path, "rides-0001"), OfflineLog(tmp_path, "rides-0002")
    assert (one.claim(steal=True), two.claim(steal=True)) == (1, 1)
    one.append(Visits, visits(1, 5))
    one.tail(Visits, visits(100))
    one.dead_letters(letters(1))
    one.commit(settled_us={"visits": AT + 6}, offsets={"rides": {1: 7}}, clock=Clock(AT + 6, "wall"))
    two.append(Visits, visits(1, 3, user="b"))
    two.tail(Visits, visits(4, user="b"))
    two.dead_letters(letters(2, 3))
    two.commit(settled_us={"visits": AT + 3}, offsets={"rides": {2: 9}}, clock=Clock(AT + 9, "wall"))
    reader = OfflineLog(tmp_path)
    assert instants(reader) == [1, 1, 3, 4, 5, 100]
    assert instants(reader, tail=False) == [1, 1, 3, 5]
    assert reader.settled_us(Visits) == AT + 3
    assert reader.manifest().clock == Clock(AT + 6, "wall")
    assert read_dead_letters(reader).column("offset").to_pylist() == [1, 2, 3]
    assert parts(tmp_path) == ["rides-0001", "rides-0002"]
    assert read_manifest(tmp_path).sequence == 2
    found = read_checkpoint(tmp_path, "rides-0002")
    assert found is not None
    assert (found.sequence, found.epoch, found.offsets) == (1, 1, {"rides": {2: 9}})
    assert sorted(file.name for file in (tmp_path / "view=visits" / "date=2026-01-01").iterdir()) == [
        "rides-0001-000000.000001-000000.000005-2.parquet",
        "rides-0002-000000.000001-000000.000003-2.parquet",
    ]


def test_a_part_that_said_nothing_of_a_view_holds_its_settling_back_only_if_it_has_it(tmp_path: Path) -> None:
    for part, settled in (("a", {"visits": AT + 9}), ("b", {})):
        log = OfflineLog(tmp_path, part)
        log.append(Visits, visits(1, user=part))
        log.commit(settled_us=settled)
    OfflineLog(tmp_path, "c").commit()
    reader = OfflineLog(tmp_path)
    assert reader.settled_us(Visits) is None
    log = OfflineLog(tmp_path, "b")
    log.claim(steal=True)
    log.commit(settled_us={"visits": AT + 5})
    assert reader.settled_us(Visits) == AT + 5


def test_a_claim_fences_the_writer_before(tmp_path: Path) -> None:
    zombie, heir = OfflineLog(tmp_path, "p"), OfflineLog(tmp_path, "p")
    assert zombie.claim(steal=True) == 1
    zombie.append(Visits, visits(1))
    zombie.commit(snapshots={"flow": b"1"})
    zombie.append(Visits, visits(2))
    zombie.tail(Visits, visits(9))
    assert heir.claim(steal=True) == 2
    assert heir.claim(steal=True) == 2  # the same claim
    with pytest.raises(FencedError, match=r"taken over part 'p' of the log at .* commits nothing more"):
        zombie.commit(snapshots={"flow": b"zombie"})
    with pytest.raises(StoreError, match="takes no more"):
        zombie.append(Visits, visits(3))
    zombie.close()
    checkpoint = read_checkpoint(tmp_path, "p")
    assert checkpoint is not None
    assert (checkpoint.snapshots, checkpoint.epoch, checkpoint.sequence) == ({"flow": (b"1",)}, 2, 1)
    heir.append(Visits, visits(2))
    heir.commit(snapshots={"flow": b"2"})
    assert instants(heir) == [1, 2]
    heir.close()
    with OfflineLog(tmp_path, "p", keep_s=0) as last:
        last.claim(steal=True)
        assert private_files(tmp_path, "p") <= last.manifest().parts["p"].paths() | {
            each.path for each in last.manifest().parts["p"].dropped
        }


def test_a_writer_that_slept_through_many_commits_is_fenced_all_the_same(tmp_path: Path) -> None:
    zombie, heir = OfflineLog(tmp_path, "p", keep_s=0), OfflineLog(tmp_path, "p", keep_s=0)
    zombie.claim(steal=True)
    for at in range(6):
        zombie.append(Visits, visits(at))
        zombie.commit()
    zombie.append(Visits, visits(50))
    heir.claim(steal=True)
    for at in range(6, 30):  # the number that the zombie will create was there and is deleted by now; files were merged
        heir.append(Visits, visits(at))
        heir.commit()
    with pytest.raises(FencedError):
        zombie.commit()
    assert instants(heir) == list(range(30))
    heir.append(Visits, visits(30))
    heir.commit()
    assert instants(heir) == list(range(31))
    assert len(list((tmp_path / "_headrace" / "commits").iterdir())) <= 4


def test_a_lock_and_a_claim_that_steals(tmp_path: Path) -> None:
    one, two = OfflineLog(tmp_path), OfflineLog(tmp_path)
    one.claim()
    with pytest.raises(LockedError, match="Another flow writes the log at"):
        two.claim()
    assert two.claim(steal=True) == 2
    one.append(Visits, visits(1))
    with pytest.raises(FencedError, match=r"taken over the log at"):
        one.commit()
    other = OfflineLog(tmp_path, "p")
    other.claim()
    with pytest.raises(LockedError, match="writes part 'p' of the log"):
        OfflineLog(tmp_path, "p").claim()
    other.close()


@pytest.mark.parametrize("part", ["a/b", "..", "-a", "a b", "ü", ".x"])
def test_what_a_part_cannot_be_called(tmp_path: Path, part: str) -> None:
    with pytest.raises(DataError, match="use letters, digits"):
        OfflineLog(tmp_path, part).claim(steal=True)


def test_names_of_parts_do_not_meet(tmp_path: Path) -> None:
    for number, part in enumerate(["", "p", "p.000000000001", "p-1", "p.x", "_p"]):
        log = OfflineLog(tmp_path, part)
        log.claim(steal=True)
        log.append(Visits, visits(number))
        log.commit(snapshots={"flow": part.encode()})
    assert parts(tmp_path) == ["", "_p", "p", "p-1", "p.000000000001", "p.x"]
    assert instants(OfflineLog(tmp_path)) == list(range(6))
    for part in parts(tmp_path):
        checkpoint = read_checkpoint(tmp_path, part)
        assert checkpoint is not None
        assert checkpoint.snapshots == {"flow": (part.encode(),)}


def test_a_part_that_never_was(tmp_path: Path) -> None:
    assert read_checkpoint(tmp_path, "p") is None
    log = OfflineLog(tmp_path, "p")
    assert log.claim(steal=True) == 1
    assert read_checkpoint(tmp_path, "p") is None
    assert log.manifest().sequence == 0
    log.commit(offsets={"s": {0: 1}})
    checkpoint = read_checkpoint(tmp_path, "p")
    assert checkpoint is not None
    assert (checkpoint.epoch, checkpoint.offsets) == (1, {"s": {0: 1}})


def test_snapshots_are_chains(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, "p")

    def chain() -> dict[str, tuple[bytes, ...]]:
        checkpoint = read_checkpoint(tmp_path, "p")
        assert checkpoint is not None
        return checkpoint.snapshots

    log.commit(snapshots={"view": SnapshotPart(b"full"), "task": b"0"}, offsets={"s": {0: 1}})
    log.commit(snapshots={"view": SnapshotPart(b"+1", delta=True), "task": b"1"})
    log.commit(snapshots={"view": SnapshotPart(lambda: b"+2", delta=True), "task": b"2"})
    assert chain() == {"view": (b"full", b"+1", b"+2"), "task": (b"2",)}
    log.commit()
    assert chain() == {"view": (b"full", b"+1", b"+2"), "task": (b"2",)}
    log.close()
    log.claim(steal=True)
    log.commit(snapshots={"view": SnapshotPart(b"+3", delta=True)})
    assert chain() == {"view": (b"full", b"+1", b"+2", b"+3")}
    log.commit(snapshots={"view": SnapshotPart(b"new")})
    assert chain() == {"view": (b"new",)}
    assert len(list((tmp_path / "_headrace/parts/p/snapshots").iterdir())) == 1
    with pytest.raises(StoreError, match=r"Snapshot 'other' says what changed .* Give the whole state first"):
        log.commit(snapshots={"other": SnapshotPart(b"+", delta=True)})


def test_the_list_of_files_stays_short_over_many_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.stores.logwriter.ARCHIVED", 10)
    log = OfflineLog(tmp_path, "p", keep_s=0)
    expected = []
    longest = 0
    for day in range(40):
        for at in (day * DAY, day * DAY + 1):
            log.append(Visits, visits(at))
            log.commit()
            expected.append(at)
        file = max((tmp_path / "_headrace" / "commits").iterdir())
        longest = max(longest, len(json.loads(file.read_bytes())["views"]["visits"]["files"]))
    assert longest < 16
    assert instants(log) == expected
    assert instants(log, from_us=AT + 3 * DAY, to_us=AT + 5 * DAY) == [3 * DAY + 1, 4 * DAY, 4 * DAY + 1, 5 * DAY]
    files = sorted((tmp_path / "view=visits").glob("*/*"))
    assert len(files) <= 42  # a date that has passed is one file
    assert sorted(log.files(Visits)) == files
    assert len(list((tmp_path / "_headrace/parts/p/archive").iterdir())) == 1
    log.close()
    log.append(Visits, visits(40 * DAY))
    log.commit()
    assert instants(log) == [*expected, 40 * DAY]


def test_dead_letters_are_merged_too(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, "p", keep_s=0)
    for at in range(30):
        log.dead_letters(letters(at))
        log.commit()
    assert read_dead_letters(log).column("offset").to_pylist() == list(range(30))
    assert len(log.manifest().dead_letters) <= 9
    assert len(list((tmp_path / "dead_letters").iterdir())) <= 9
    log.close()
    with OfflineLog(tmp_path, "q") as other:
        other.dead_letters(letters(99))
        other.commit()
    assert read_dead_letters(log).column("offset").to_pylist() == [*range(30), 99]


def test_plain_readers_see_each_row_once_though_merged_files_wait(tmp_path: Path) -> None:
    import duckdb

    log = OfflineLog(tmp_path, "p", keep_s=3600)
    for at in range(20):
        log.append(Visits, visits(at))
        log.commit()
        sql = f"SELECT count(*) FROM read_parquet('{tmp_path}/view=visits/*/*.parquet')"
        assert duckdb.sql(sql).fetchall() == [(at + 1,)]
    assert instants(log) == list(range(20))
    assert len(log.manifest().views["visits"].files) < 10
    log.close()
    with OfflineLog(tmp_path, "p", keep_s=0) as later:  # an hour has passed, as it were
        later.claim(steal=True)
        later.append(Visits, visits(20))
        later.commit()
        assert instants(later) == list(range(21))
        assert duckdb.sql(sql).fetchall() == [(21,)]


def test_a_reader_goes_on_with_an_old_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = OfflineLog(tmp_path, "p")
    for at in range(7):
        log.append(Visits, visits(at))
        log.tail(Visits, visits(DAY + at))
        log.commit()
    old = log.manifest()
    reader = OfflineLog(tmp_path)
    monkeypatch.setattr(reader, "manifest", lambda: old)
    for at in range(7, 30):
        log.append(Visits, visits(at))
        log.commit()
    assert instants(reader) == [*range(7), DAY + 6]


def test_readers_see_each_row_once_while_parts_are_written_merged_and_claimed(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    wrong: list[Any] = []
    done = threading.Event()

    def write(part: str) -> None:
        at = 0
        while not done.is_set():
            with OfflineLog(tmp_path, part, keep_s=0.5) as log:
                log.claim(steal=True)
                for _ in range(7):
                    log.append(Visits, visits(at, at + 1, user=part))
                    log.commit()
                    at += 2

    def look() -> None:
        reader = OfflineLog(tmp_path)
        least = dict.fromkeys(names, 0)
        while not done.is_set():
            if "visits" not in reader.views():
                continue
            rows = reader.scan(Visits, columns=["user", "visits"]).to_pydict()
            for part in names:
                seen = [at for user, at in zip(rows["user"], rows["visits"], strict=True) if user == part]
                if seen != list(range(len(seen))) or len(seen) % 2 or len(seen) < least[part]:
                    wrong.append((part, seen))
                least[part] = len(seen)

    threads = [threading.Thread(target=write, args=(part,), daemon=True) for part in names] + [
        threading.Thread(target=look, daemon=True)
    ]
    for thread in threads:
        thread.start()
    done.wait(4)
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert instants(OfflineLog(tmp_path))


def test_a_folder_of_version_0_1_goes_on(tmp_path: Path) -> None:
    with OfflineLog(tmp_path, keep_s=0) as log:
        log.append(Visits, visits(1))
        log.tail(Visits, visits(9))
        log.dead_letters(letters(4))
        log.commit(settled_us={"visits": AT + 2}, snapshots={"flow": b"state"}, offsets={"s": {0: 3}})
    commit = log.manifest().parts[""]
    view = commit.views["visits"]
    layout = json.loads(json.dumps({"view": "visits"}))
    assert encode_layout(row_layout(Visits))
    layout = {
        "view": view.layout.view,
        "keys": view.layout.keys,
        "features": view.layout.features,
        "identity": view.layout.identity,
        "meaning": view.layout.meaning,
    }
    (snapshot,) = commit.snapshots["flow"]
    waiting = tmp_path / "_headrace" / "staged" / (view.files[0].path.replace("/", "+") + ".staged")
    (tmp_path / view.files[0].path).rename(waiting)  # a crash came between the commit and the renaming
    old = {
        "sequence": 1,
        "views": {
            "visits": {
                "layout": layout,
                "settled_us": view.settled_us,
                "files": [{"path": view.files[0].path, "rows": 1, "first_us": AT + 1, "last_us": AT + 1}],
                "tail": {"path": view.tails[0].path, "rows": 1},
            }
        },
        "snapshots": {"flow": {"path": snapshot.path, "size": snapshot.size, "crc32": snapshot.crc32}},
        "offsets": {"s": {"0": 3}},
        "clock": None,
        "dead_letters": [{"path": commit.dead_letters[0].path, "rows": 1}],
        "format": 1,
    }
    for file in (tmp_path / "_headrace" / "commits").iterdir():
        file.unlink()
    (tmp_path / "_headrace" / "manifest.json").write_text(json.dumps(old))
    merged_away = tmp_path / "view=visits" / "date=2026-01-01" / "000000.000000-000000.000000-1.parquet"
    merged_away.write_text("left by a crash")

    assert instants(log) == [1, 9]
    assert read_dead_letters(log).column("offset").to_pylist() == [4]
    checkpoint = read_checkpoint(tmp_path)
    assert checkpoint is not None
    assert (checkpoint.snapshots, checkpoint.offsets, checkpoint.epoch) == ({"flow": (b"state",)}, {"s": {0: 3}}, 0)
    with OfflineLog(tmp_path, keep_s=0) as again:
        assert again.claim() == 1
        again.append(Visits, visits(2))
        again.tail(Visits, visits(9))
        again.commit(snapshots=None)
    assert instants(log) == [1, 2, 9]
    assert not (tmp_path / "_headrace" / "manifest.json").exists()
    assert not merged_away.exists()
    assert (tmp_path / view.files[0].path).exists()
    assert read_checkpoint(tmp_path).snapshots == {"flow": (b"state",)}  # type: ignore[union-attr]
    assert read_dead_letters(log).num_rows == 1


def test_a_question_that_takes_longer_than_files_stay_comes_to_an_end(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, "p", keep_s=0)
    for at in range(8):
        log.append(Visits, visits(at))
        log.commit()
    asked = []

    def work(connection: Any, sources: dict[str, str]) -> list[int]:
        at = len(log.manifest().parts["p"].views) and log.manifest().sequence
        asked.append(sources)
        for more in range(at, at + 9):  # many commits and a merge while the question is asked
            log.append(Visits, visits(more))
            log.commit()
        return [at for (at,) in connection.sql(f"SELECT visits FROM {sources['visits']} ORDER BY 1").fetchall()]

    assert OfflineLog(tmp_path).query([Visits], work) == list(range(17))
    assert len(asked) == 2


def test_a_damaged_file_is_said_though_the_log_is_written_meanwhile(tmp_path: Path) -> None:
    log = OfflineLog(tmp_path, "p", keep_s=0)
    log.append(Visits, visits(1))
    log.commit()
    log.append(Visits, visits(2))
    log.commit()
    (tmp_path / log.manifest().views["visits"].files[0].place).write_bytes(b"nothing of ours")

    def work(connection: Any, sources: dict[str, str]) -> Any:
        log.tail(Visits, visits(DAY))
        log.commit()
        return connection.sql(f"SELECT * FROM {sources['visits']}").fetchall()

    with pytest.raises(CorruptError, match="lacks a file that its manifest names, or the file is damaged"):
        OfflineLog(tmp_path).query([Visits], work)


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_a_log_is_removed_with_all_its_parts(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "log" if kind == "folder" else "memory://removed/log"
    for part in ("p", "q"):
        with OfflineLog(root, part) as log:
            log.append(Visits, visits(1))
            log.dead_letters(letters(1))
            log.commit(snapshots={"flow": b"state"})
    log.place.write("mine", b"note") if kind == "memory" else (tmp_path / "log" / "mine").write_text("note")
    remove_log(root)
    assert parts(root) == []
    assert log.place.walk("view=visits") + log.place.walk("_headrace") + log.place.walk("dead_letters") == []
    assert log.place.read("mine") == b"note"
    assert OfflineLog(root, "p").claim() == 1
