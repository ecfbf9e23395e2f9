"""A log on object stores: fsspec's memory, and S3's own protocol spoken by a server on this machine."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tests.servers.s3 import s3
from tests.stores.logs import DAY, instants, visits

from headrace.features.errors import DataError
from headrace.stores import places
from headrace.stores.checkpoints import SnapshotPart, read_checkpoint
from headrace.stores.commits import parts
from headrace.stores.deadletters import dead_letter_table, read_dead_letters
from headrace.stores.errors import FencedError, MissingStoreError, StoreError
from headrace.stores.offline import OfflineLog
from headrace.stores.remoteplace import RemotePlace
from headrace.stores.testing import AT, Visits

__all__ = ["s3"]

ROOTS = count()


@pytest.fixture(params=["memory", "s3"])
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    base = "memory://" if request.param == "memory" else request.getfixturevalue("s3") + "/"
    url = f"{base}log{next(ROOTS)}"
    yield url
    fs, path = fsspec.url_to_fs(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def letter(offset: int) -> Any:
    row = {"reason": "late", "detail": "", "source": "s", "partition": 0, "offset": offset, "payload": ""}
    return dead_letter_table([row | {"event_time_us": None}])


def test_a_log_is_written_merged_and_read(root: str) -> None:
    log = OfflineLog(root, "rides-0001", keep_s=0)
    with pytest.raises(MissingStoreError, match="has nothing of view 'visits'; it has no view"):
        log.scan(Visits)
    assert log.claim() == 1
    for at in range(12):
        log.append(Visits, visits(at, DAY) if at == 11 else visits(at))
        log.tail(Visits, visits(2 * DAY + at))
        log.dead_letters(letter(at))
        log.commit(
            settled_us={"visits": AT + at},
            snapshots={"flow": SnapshotPart(b"%d" % at, delta=at > 0)},
            offsets={"s": {0: at}},
        )
    reader = OfflineLog(root)
    assert instants(reader, tail=False) == [*range(12), DAY]
    assert instants(reader) == [*range(12), DAY, 2 * DAY + 11]
    assert instants(reader, from_us=AT + 3, to_us=AT + 5) == [4, 5]
    assert reader.scan(Visits, [{"user": "a"}]).num_rows == 14
    assert reader.latest(Visits, to_us=AT + 9).column("visits").to_pylist() == [9]
    assert read_dead_letters(reader).column("offset").to_pylist() == list(range(12))
    checkpoint = read_checkpoint(root, "rides-0001")
    assert checkpoint is not None
    assert checkpoint.snapshots == {"flow": tuple(b"%d" % at for at in range(12))}
    assert checkpoint.offsets == {"s": {0: 11}}
    assert parts(root) == ["rides-0001"]
    assert (
        reader.files(Visits)[-1]
        == f"{root}/view=visits/date=2026-01-02/rides-0001-000000.000000-000000.000000-1.parquet"
    )
    assert len(reader.files(Visits)) < 8
    fs, path = fsspec.url_to_fs(root)
    public = fs.glob(f"{path}/view=visits/*/*.parquet")
    assert len(public) == len(reader.files(Visits))
    assert repr(reader) == f"OfflineLog('{root}')"


def test_a_claim_fences_the_writer_before(root: str) -> None:
    zombie, heir = OfflineLog(root, "p"), OfflineLog(root, "p")
    zombie.claim(steal=True)
    zombie.append(Visits, visits(1))
    zombie.commit()
    zombie.append(Visits, visits(2))
    assert heir.claim() == 2  # there are no locks: the last to claim is the writer
    with pytest.raises(FencedError, match="taken over part 'p' of the log at"):
        zombie.commit()
    heir.append(Visits, visits(3))
    heir.commit()
    assert instants(heir) == [1, 3]


def test_a_commit_is_put_only_where_none_is(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = RemotePlace(root)
    assert place.create("x/1", b"one", "x/beside")
    assert not place.create("x/1", b"two", "x/beside")
    if root.startswith("s3"):  # the other one came between the look and the put
        monkeypatch.setattr(place.fs, "exists", lambda path: False)
        assert not place.create("x/1", b"three", "x/beside")
    assert place.read("x/1") == b"one"


def test_a_store_that_overwrites_is_caught_by_reading_back(monkeypatch: pytest.MonkeyPatch) -> None:
    place = RemotePlace("memory://overwriting")

    def late_rival(path: str, data: bytes, mode: str) -> None:
        place.fs.store.pop(path, None)
        real(path, b"rival")

    real = place.fs.pipe_file
    monkeypatch.setattr(place.fs, "pipe_file", late_rival)
    assert not place.create("x", b"mine", "beside")


def test_an_unreachable_store_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    log = OfflineLog("memory://broken", "p")
    log.claim()
    log.append(Visits, visits(1))

    def down(*_: Any, **__: Any) -> None:
        raise RuntimeError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(log.place.fs, "pipe_file", down)  # type: ignore[attr-defined]
        with pytest.raises(StoreError, match=r"log at memory://broken cannot be written: RuntimeError: the network is"):
            log.commit()
    log.close()
    again = OfflineLog("memory://broken", "p")
    assert again.claim() == 2
    assert again.manifest().sequence == 0
    assert again.views() == []


def test_secrets_of_a_url_are_not_shown() -> None:
    log = OfflineLog("memory://user:secret@host/log?token=secret", "p")
    assert "secret" not in repr(log) + str(log.place) + str(log.place.file("x"))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(StoreError, match=r"Cannot reach nosuch://bucket/log: .*pip install 'headrace\[remote\]'"):
        places.open_place("nosuch://key:secret@bucket/log")


def test_a_url_that_lost_a_slash_is_no_folder() -> None:
    with pytest.raises(DataError, match=r"'s3:/bucket/log' is neither a path nor a URL\. Write a URL as text"):
        OfflineLog(Path("s3://bucket/log"))


def test_what_was_given_up_is_not_uploaded(root: str) -> None:
    log = OfflineLog(root, "p")
    log.claim()
    log.append(Visits, visits(1))
    log.close()
    assert log.place.walk("_headrace/parts/p/staged") == []


def test_a_file_url_is_a_folder(tmp_path: Any) -> None:
    with OfflineLog(f"file://{tmp_path}/log") as log:
        log.append(Visits, visits(1))
        log.commit()
    assert log.root == tmp_path / "log"
    assert instants(OfflineLog(tmp_path / "log")) == [1]
