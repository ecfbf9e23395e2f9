"""The state of objects: it comes back as it was, and whoever writes the bytes chooses values and never code (C16)."""

from __future__ import annotations

import collections
import functools
import math
import operator
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from river import anomaly, cluster, compose, drift, forest, linear_model, preprocessing, stats, tree, utils

from headrace.features.object_state import FORMAT, Known, ObjectStateError, alike, decode, encode


class Colour(Enum):
    RED = 1


class Place(NamedTuple):
    x: int
    y: Any


class Slotted:
    __slots__ = ("__hidden", "a", "b")

    def __init__(self, a: Any) -> None:
        self.a = a
        self.__hidden = [a]

    @property
    def hidden(self) -> Any:
        return self.__hidden


class Counted(dict[str, int]):
    """A container with attributes of its own, whose constructor must not be called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Told:
    """State by its own two methods."""

    def __init__(self) -> None:
        self.values = [1, 2]

    def __getstate__(self) -> dict[str, Any]:
        return {"joined": ",".join(map(str, self.values))}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.values = [int(each) for each in state["joined"].split(",")]


@dataclass
class Node:
    value: Any
    other: Any = None


def again(value: Any, known: Known | None = None) -> Any:
    known = known or Known.of(value)
    return decode(encode(value, known), known)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=("Cs",)))
    | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text("ab") | st.integers(0, 2**70), inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers() | st.text("ab"))
        | st.builds(Node, inner, inner)
    ),
    max_leaves=12,
)


@given(plain)
def test_plain_values(value: Any) -> None:
    known = Known.of(value, Node(1))
    got = again(value, known)
    assert got == value
    assert encode(got, known) == encode(value, known)


KINDS: list[Any] = [
    2**2048, -math.inf, 1 + 2j, range(3, 9, 2), slice(1, None, 3), Colour.RED, Place(1, [2]),
    frozenset({(1, "a")}), collections.Counter("abca"), collections.OrderedDict([("b", 1), ("a", 2)]),
    datetime(2026, 1, 2, 3, tzinfo=UTC), datetime(2026, 1, 2, fold=1), date(2026, 1, 2), timedelta(-1, 2, 3),
    Decimal("1.10"), Fraction(2, 6), np.float64(0.1), np.int8(-3), np.datetime64("2026-01-01", "us"), np.dtype("<i4"),
    functools.partial(int, "12", base=8), operator.add, int, collections.deque([1, [2]], maxlen=2),
]  # fmt: skip


@pytest.mark.parametrize("value", KINDS, ids=lambda value: type(value).__name__)
def test_kinds(value: Any) -> None:
    got = again(value)
    assert type(got) is type(value)
    if isinstance(value, functools.partial):
        assert got() == value()
    else:
        assert got == value
    assert getattr(got, "maxlen", None) == getattr(value, "maxlen", None)


def test_arrays_keep_type_shape_and_order() -> None:
    for array in (
        np.arange(6.0).reshape(2, 3).T,
        np.array([], dtype=np.int8),
        np.array([[1, "a", None]], dtype=object),
    ):
        got = again(array)
        assert (got.dtype, got.shape, got.flags.f_contiguous) == (array.dtype, array.shape, array.flags.f_contiguous)
        assert got.tolist() == array.tolist()
        assert got.flags.writeable


def test_random_numbers_go_on() -> None:
    for made in (random.Random(3), np.random.RandomState(3), np.random.default_rng(3)):
        draw = made.normalvariate if isinstance(made, random.Random) else made.normal
        draw(0, 1)
        got = again(made)
        same = got.normalvariate if isinstance(got, random.Random) else got.normal
        assert [same(0, 1) for _ in range(700)] == [draw(0, 1) for _ in range(700)]


def test_shared_and_circular() -> None:
    shared: list[Any] = [1]
    node = Node(shared, Node(shared))
    node.other.other = (node, {"again": node})
    got = again(node)
    assert got.value is got.other.value
    assert got.other.other[0] is got is got.other.other[1]["again"]
    got.value.append(2)
    assert got.other.value == [1, 2]
    assert shared == [1]


def test_objects_are_made_without_their_constructor() -> None:
    slotted, counted, told = Slotted(1), Counted("n"), Told()
    counted["k"] = 5
    told.values.append(3)
    made = again([slotted, counted, told])
    assert (made[0].a, made[0].hidden, hasattr(made[0], "b")) == (1, [1], False)
    assert (dict(made[1]), made[1].name) == ({"k": 5}, "n")
    assert made[2].values == [1, 2, 3]


def test_deep() -> None:
    top = node = Node(0)
    for at in range(5_000):
        node.other = Node(at)
        node = node.other
    got = again(top)
    for _ in range(5_000):
        got = got.other
    assert got.value == 4_999


def test_what_cannot_be_kept_is_named_with_its_place(tmp_path: Path) -> None:
    with (tmp_path / "f").open("w") as file:
        for value, place in (
            (
                Node([1, {"k": file}]),
                r"object\.value\[1\]\['k'\] is a .*TextIOWrapper",
            ),
            (Node(threading.Lock()), "lock"),
            (Node(iter([1])), "list_iterator"),
            (Node(np.zeros(2, dtype=[("a", "i4")])), "array of"),
        ):
            with pytest.raises(ObjectStateError, match=place):
                Known.of(value)
    known = Known.of(Node(0))
    with pytest.raises(ObjectStateError, match="State knows the functions that the definition holds"):
        encode(Node(lambda: 1), known)
    with pytest.raises(ObjectStateError, match=r"classes=\[Slotted\]"):
        encode(Node(Slotted(1)), known)
    whole = np.zeros(4)
    with pytest.raises(ObjectStateError, match="looks into another array"):
        Known.of([whole, whole[1:]])


LEARNERS: list[Callable[[], Any]] = [
    lambda: compose.Pipeline(preprocessing.MinMaxScaler(), anomaly.HalfSpaceTrees(seed=1, n_trees=3, height=4)),
    lambda: preprocessing.StandardScaler() | linear_model.LogisticRegression(),
    lambda: tree.HoeffdingTreeClassifier(grace_period=20),
    lambda: tree.HoeffdingAdaptiveTreeRegressor(grace_period=20, seed=1),
    lambda: forest.ARFRegressor(n_models=2, seed=1),
    lambda: forest.AMFClassifier(n_estimators=2, seed=1),
    lambda: cluster.KMeans(seed=1),
    lambda: anomaly.OneClassSVM(),
    lambda: anomaly.GaussianScorer(),
]
NUMBERS: list[Callable[[], Any]] = [
    drift.ADWIN, drift.PageHinkley, lambda: drift.KSWIN(seed=1), stats.Quantile, stats.EWVar, stats.Kurtosis,
    lambda: stats.RollingIQR(20), lambda: utils.Rolling(stats.Var, window_size=10), stats.Mode,
]  # fmt: skip


def learn(model: Any, at: int) -> Any:
    """One made-up event; what the model tells of it."""
    draw = random.Random(at)
    x, y = {"a": draw.gauss(0, 1), "b": draw.gauss(at / 50, 1)}, draw.random() < 0.4
    if not hasattr(model, "learn_one"):
        model.update(x["b"])
        return model.drift_detected if hasattr(model, "drift_detected") else model.get()
    takes = model.learn_one.__code__.co_varnames
    told = model.score_one(x) if isinstance(model, (anomaly.OneClassSVM, compose.Pipeline)) and not isinstance(
        list(getattr(model, "steps", {0: 0}).values())[-1], linear_model.LogisticRegression) else None  # fmt: skip
    if told is None and hasattr(model, "predict_one") and not isinstance(model, anomaly.GaussianScorer):
        told = model.predict_one(x)
    if isinstance(model, anomaly.GaussianScorer):
        model.learn_one(x, x["a"])
    elif "y" in takes[: model.learn_one.__code__.co_argcount]:
        model.learn_one(x, y)
    else:
        model.learn_one(x)
    return told


@pytest.mark.parametrize("make", LEARNERS + NUMBERS, ids=lambda make: "")
def test_river_goes_on_as_though_nothing_had_happened(make: Callable[[], Any]) -> None:
    model = make()
    known = Known.of(model)
    told, kept = [], []
    copy = again(model, known)
    for at in range(120):
        told.append(learn(model, at))
        kept.append(learn(copy, at))
        if at % 30 == 7:
            copy = again(copy, known)
    assert kept == told
    assert alike(encode(copy, known), encode(model, known))


def crafted(nodes: list[Any], shapes: list[Any] | None = None, packages: dict[str, str] | None = None) -> bytes:
    return msgspec.msgpack.encode([FORMAT, packages or {}, shapes or [], nodes, [0]])


ran: list[str] = []


def danger(*args: Any) -> None:
    ran.append("danger")


class Dangerous:
    def __init__(self) -> None:
        danger()

    def __reduce__(self) -> Any:
        return danger, ()

    def __setattr__(self, name: str, value: Any) -> None:
        danger()

    def __setstate__(self, state: Any) -> None:
        danger()


@pytest.mark.parametrize(
    "data",
    [
        crafted([["function", "os.system"]]),
        crafted([["function", "builtins.eval"]]),
        crafted([["function", ".danger"]]),
        crafted([["function", "river.utils.random.poisson"]]),
        crafted([["class", "subprocess.Popen"]]),
        crafted([["class", "river.datasets.base.RemoteDataset"]]),
        crafted([["class", "river.stats.mean.os"]]),
        crafted([["class", "river.utils.inspect.importlib"]]),
        crafted([["object", 0, []]], [[".Dangerous", []]]),
        crafted([["told", ".Dangerous", 1]]),
        crafted([["told", "river.stats.mean.Mean", 1]]),
        crafted([["method", [1], "clone"], ["object", 0, []]], [["river.stats.mean.Mean", []]]),
        crafted([["partial", [1], 0, [], []], ["function", "os.system"]]),
        crafted([["compiled", "river.stats.mean.Mean", [1], b""], ["tuple", []]]),
        crafted([["compiled", "river._river_rust.stats.RsQuantile", [1], b"\xff" * 9], ["tuple", []]]),
        crafted([["array", "|O", [1], "C", b"\x00" * 8]]),
        crafted([["enum", "builtins.int", "real"]]),
        crafted([["object", 0, [1]]], [["builtins.int", ["__class__"]]]),
        crafted([["tuple", [[0]]]]),
        crafted([["list", [[7]]]]),
        crafted([["nothing"]]),
        crafted([["list", []]], packages={"os": "1"}),
        crafted([["list", []]], packages={"river": "0.1"}),
        b"\x80\x04\x95\x00",
        b"",
        msgspec.msgpack.encode([FORMAT + 1, {}, [], [], None]),
    ],
)  # fmt: skip
def test_bytes_choose_no_code(data: bytes) -> None:
    known = Known.of([Node(1), stats.Mean()])
    with pytest.raises(ObjectStateError):
        decode(data, known)
    assert not ran


def test_a_known_class_runs_neither_constructor_nor_setattr() -> None:
    known = Known(classes={".Dangerous": Dangerous})
    made = decode(crafted([["object", 0, [7]]], [[".Dangerous", ["value"]]]), known)
    assert vars(made) == {"value": 7}
    assert not ran


@given(st.data())
def test_damaged_bytes_are_refused_or_harmless(data: st.DataObject) -> None:
    known = Known.of(Node([1, {"a": (2, {3})}], drift.ADWIN()))
    whole = bytearray(encode(Node([1, {"a": (2, {3})}], random.Random(1)), known))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode(bytes(whole), known)
    except ObjectStateError:
        return


def test_another_version_is_refused() -> None:
    known = Known.of(stats.Mean())
    parts = msgspec.msgpack.decode(encode(stats.Mean(), known))
    parts[1]["river"] = "0.0.1"
    with pytest.raises(ObjectStateError, match=r"written with river 0\.0\.1, and .* Install river==0\.0\.1"):
        decode(msgspec.msgpack.encode(parts), known)


def test_nothing_is_pickled() -> None:
    assert b"pickle" not in encode(Node(os.path.join("a")), Known.of(Node(1)))


def test_names_do_not_depend_on_the_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A views file is `views` to the command line, and `shop.features.views` to a model server."""
    before = encode(Node([1], Told()), Known.of(Node(1), Told()))
    for each in (Node, Told):
        monkeypatch.setattr(each, "__module__", "shop.features.views")
    got = decode(before, Known.of(Node(1), Told()))
    assert encode(got, Known.of(Node(1), Told())) == before
    twin = type("Node", (), {})
    known = Known.of(Node(1), twin())
    assert [type(each) for each in decode(encode([Node(1), twin()], known), known)] == [Node, twin]
