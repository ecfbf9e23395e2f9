"""Snapshots: what went in comes out, anything else is refused with the next move, and nothing in them can run."""

from __future__ import annotations

import ast
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.features import Entity, Event, EventTime, FeatureView, IterableSource, Lifetime
from headrace.features.columns import Column
from headrace.flows import snapshot
from headrace.flows.decode import decode_rows
from headrace.flows.pipeline import SourceFlow
from headrace.flows.shard import ShardOperator
from headrace.flows.snapshot import SnapshotError, pack, unpack

ROOT = Path(__file__).parents[2]


class Ride(Event):
    driver: str
    fare: Column[float | None]
    city: Column[str | None]
    at: EventTime


rides = IterableSource([], Ride, name="rides", lateness="1m")
driver = Entity("driver", key="driver")


class Activity(FeatureView, source=rides, entity=driver):
    rides_10m = Ride.count(last="10m")
    mean = Ride.fare.mean(last="1h")
    cities = Ride.city.distinct(over=Lifetime())


class Other(FeatureView, source=rides, entity=driver):
    rides_10m = Ride.count(last="10m")


class Changed(FeatureView, source=rides, entity=driver, name="activity"):
    rides_10m = Ride.count(last="20m")
    mean = Ride.fare.mean(last="1h")
    cities = Ride.city.distinct(over=Lifetime())


def flow(*views: Any, minutes: int = 30) -> SourceFlow:
    made = SourceFlow(rides, views)
    rows = [
        {
            "driver": f"d{m % 3}",
            "fare": None if m % 5 == 0 else m / 4,
            "city": ("oslo", None, "rome")[m % 3],
            "at": f"2026-01-01T00:{m:02d}:00Z",
        }
        for m in range(minutes)
    ]
    batch, dead = decode_rows(rides.schema, rows, 0, 0)
    assert not dead
    made.push(batch)
    return made


def parts_of(going: SourceFlow) -> dict[str, list[bytes]]:
    return {name: [part.data] for name, part in going.save(full=True).items()}


ARRAYS = {
    "ints": np.arange(-3, 3, dtype=np.int64).reshape(2, 3),
    "floats": np.array([0.1, np.nan, -np.inf]),
    "bytes": np.array([[1, 2]], dtype=np.uint8),
    "bools": np.array([True, False]),
    "none": np.empty((0, 4)),
    "long": np.arange(3000, dtype=np.int64).reshape(1000, 3),
    "noise": np.random.default_rng(1).random(1000),
    "flags": np.zeros((500, 3), dtype=np.uint8),
}


def test_what_went_in_comes_out() -> None:
    meta = {"name": "ü", "number": -(2**63), "nested": {"list": [1, None, b"x"]}, "": {}}
    back, arrays = unpack(pack(meta, ARRAYS))
    assert back == meta
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert np.array_equal(arrays[name], array, equal_nan=array.dtype == np.float64)
        assert arrays[name].flags.writeable


def test_arrays_of_any_memory_order_are_kept() -> None:
    grid = np.arange(12, dtype=np.int64).reshape(3, 4)
    _, arrays = unpack(pack({}, {"turned": grid.T, "stepped": grid[:, ::2], "swapped": grid.astype(">i8")}))
    assert np.array_equal(arrays["turned"], grid.T)
    assert np.array_equal(arrays["stepped"], grid[:, ::2])
    assert np.array_equal(arrays["swapped"], grid)


def test_objects_are_no_array() -> None:
    with pytest.raises(TypeError, match="'names' is object; a snapshot holds int64, float64, uint8 and bool"):
        pack({}, {"names": np.array(["a"], dtype=object)})


def test_a_snapshot_of_the_same_state_is_the_same_bytes() -> None:
    assert parts_of(flow(Activity)) == parts_of(flow(Activity))


@pytest.mark.parametrize(
    "made", [lambda: pack({"a": 1}, ARRAYS), lambda: parts_of(flow(Activity, minutes=3))[STATE][0]]
)
def test_cut_short_anywhere_it_is_refused(made: Callable[[], bytes]) -> None:
    data = made()
    for length in range(len(data)):
        with pytest.raises(SnapshotError, match="earlier checkpoint"):
            unpack(data[:length])
    with pytest.raises(SnapshotError, match="damaged"):
        unpack(data + b"\0")


def test_changed_in_any_byte_it_is_refused() -> None:
    data = pack({"view": "v", "clock": 7}, {"ints": np.arange(4, dtype=np.int64)})
    for at in range(len(data)):
        for bit in (0, 7):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(SnapshotError):
                unpack(bytes(changed))


STATE = "rides.activity"
TAKEN = parts_of(flow(Activity))


@given(st.data())
def test_changed_in_any_byte_a_flow_refuses_it(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TAKEN)))
    changed = bytearray(TAKEN[name][0])
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SnapshotError):
        SourceFlow(rides, [Activity]).load({**TAKEN, name: [bytes(changed)]})


def sealed(body: bytes) -> bytes:
    """Bytes with the checksum of a snapshot, as somebody could make who knows the format."""
    import hashlib

    return body + hashlib.blake2b(body, digest_size=16).digest()


def test_another_version_says_what_to_do() -> None:
    data = bytearray(pack({}, {}))
    struct.pack_into("<I", data, 8, snapshot.VERSION + 1)
    with pytest.raises(
        SnapshotError,
        match=f"format version {snapshot.VERSION + 1}; this Headrace reads version {snapshot.VERSION}. Use the "
        "Headrace that wrote it, or start the flow anew",
    ):
        unpack(bytes(data))


def test_another_file_says_what_to_do() -> None:
    with pytest.raises(SnapshotError, match=r"Not a Headrace snapshot: 100 bytes .* Restore from an earlier"):
        unpack(b"PAR1" * 25)
    with pytest.raises(SnapshotError, match="Not a Headrace snapshot: 0 bytes"):
        unpack(b"")


def header_of(array: Any) -> bytes:
    return msgspec.msgpack.encode({"meta": {}, "arrays": [array]})


@pytest.mark.parametrize(
    "header",
    [
        b"\xc1",  # no MessagePack
        b"\x93\x01\x02\x03",  # no mapping
        b"\x80",  # a mapping without what belongs in it
        header_of(["a", "<i8", [2**32], "", 64]),  # an array longer than its buffer
        header_of(["a", "<i8", [2**32], "", 2**35]),  # a buffer longer than the data
        header_of(["a", "<i8", [-1], "", 64]),  # a negative length
        header_of(["a", "|O", [8], "", 64]),  # objects
        header_of(["a", "<i8", 8, "", 64]),  # no shape
        header_of(["a", "<i8", [8], "q", 64]),  # an unknown form
        header_of(["a", "<i8", [8], "sz", 64]),  # not compressed
        header_of(["a", "<i8", [2**60], "z", 64]),  # larger than any memory
        header_of(1),  # no array
    ],
)
def test_a_false_header_under_a_right_checksum_is_refused(header: bytes) -> None:
    for length in (0, 10, 2**60):
        body = struct.pack("<8sIQQ", snapshot.MAGIC, snapshot.VERSION, len(header), length) + header + bytes(64)
        with pytest.raises(SnapshotError):
            unpack(sealed(body))


def test_a_snapshot_of_something_else_is_refused() -> None:
    for other in (TAKEN["rides.-admission"][0], pack({}, {}), pack({"view": "activity"}, ARRAYS)):
        with pytest.raises(SnapshotError, match="view 'activity'"):
            ShardOperator(Activity).load([other])
    with pytest.raises(SnapshotError, match="is of view 'other', expected view 'activity'"):
        ShardOperator(Activity).load([ShardOperator(Other).save().data])
    with pytest.raises(SnapshotError, match="source 'rides'"):
        SourceFlow(rides, [Activity]).load({"rides.-admission": TAKEN[STATE]})
    with pytest.raises(SnapshotError, match="holds nothing of source 'rides'"):
        SourceFlow(rides, [Activity]).load({})


def test_a_changed_view_says_what_to_do() -> None:
    with pytest.raises(
        SnapshotError,
        match=r"View 'activity' is not the one whose state was saved: feature rides_10m changed from count \(last 10m, "
        r"hop 10s\) to count \(last 20m, hop 15s\)\. .*\(--on-change start\) begins them empty, \"backfill\" fills.*"
        "replay its source",
    ):
        ShardOperator(Changed).load(TAKEN[STATE])


def test_a_view_that_was_not_there_says_what_to_do() -> None:
    flow(Activity, Other).load(parts_of(flow(Activity, Other)))
    with pytest.raises(
        SnapshotError, match=r"View 'other' is not in the checkpoint of source 'rides'.*another data folder"
    ):
        flow(Activity, Other).load(TAKEN)


def test_a_refused_snapshot_leaves_the_flow_as_it_was() -> None:
    for wrong in ({STATE: [TAKEN[STATE][0][:-1]]}, parts_of(flow(Changed)), {STATE: []}):
        going = flow(Activity)
        before = parts_of(going)
        with pytest.raises(SnapshotError):
            going.load({**TAKEN, **wrong})
        assert parts_of(going) == before


class Trap:
    """What runs code of its choice when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(Path(os.environ["TRAP"])),)


def test_a_pickle_is_refused_and_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sprung = tmp_path / "sprung"
    monkeypatch.setenv("TRAP", str(sprung))
    payload = pickle.dumps(Trap())
    pickle.loads(payload)
    assert sprung.exists(), "the trap works"
    sprung.rmdir()
    for data in (
        payload,
        sealed(struct.pack("<8sIQQ", snapshot.MAGIC, snapshot.VERSION, len(payload), 0) + payload),
        pack({"view": "activity", "keys": payload, "fingerprint": payload}, {}),
        pack({"source": "rides", "ids": payload, "link": payload}, {}),
    ):
        with pytest.raises(SnapshotError):
            ShardOperator(Activity).load([data])
        for name in TAKEN:
            with pytest.raises(SnapshotError):
                SourceFlow(rides, [Activity]).load({**TAKEN, name: [data]})
    assert not sprung.exists()


LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}


@pytest.mark.parametrize("folder", ["features", "flows", "stores", "serving", "materialize", "src/headrace"])
def test_nothing_that_loads_objects_is_imported(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not LOADERS.intersection(name.partition(".")[0] for name in names), path
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                of_numpy = isinstance(node.func.value, ast.Name) and node.func.value.id == "np"
                assert not (of_numpy and node.func.attr in ("load", "save")), path
