"""Stateful features: an object per entity that learns from its events in order, such as one of River's.

    surprise = Ride.stateful(MinMaxScaler() | HalfSpaceTrees(seed=7), x=[Ride.fare, Ride.km])
    tip      = Ride.stateful(StandardScaler() | LinearRegression(), x=[Ride.fare, Ride.km], y=Ride.tip)
    drifts   = Ride.fare.stateful(ADWIN())
    own      = Ride.fare.stateful(Streak(above=20))

Order matters to such an object, so it cannot be put together from tiles. It gets an entity's events in the order in
which they count: by event time, ties by source position, a late event that counts (C7) at the instant from which it
does. The feature's value at t is what the object told at the newest of them at or before t. So it depends on the
events and t alone (C3), which asks two things of the object: it must draw no random numbers without a seed, and look
at nothing but what it is given.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from headrace.features import dtypes
from headrace.features.aggregations import Aggregation, Position, State
from headrace.features.code import code_key
from headrace.features.columns import Column, Expression, Row
from headrace.features.errors import DataError, DefinitionError
from headrace.features.learners import DRIFTS, Driving, driving_of, output_of
from headrace.features.object_state import Known, ObjectStateError, alike, decode, encode, versions

TRIED = 64
"""Events with which an object is tried when it is defined."""


class Running:
    """An object on its way. seen: events it was fed. value: what it told last. drifts: of a detector."""

    __slots__ = ("drifts", "model", "seen", "value")

    def __init__(self, model: Any, value: Any = None, seen: int = 0, drifts: int = 0) -> None:
        self.model = model
        self.value = value
        self.seen = seen
        self.drifts = drifts


@dataclass(frozen=True, eq=False)
class Stateful(Aggregation):
    """An object that learns, as an `Aggregation` without `merge`: `ordered`, so the engine feeds it event by event.

    State: `Running`. The input is a tuple: values by `inputs`, then the label where `labelled`, None where that is
    missing.

    Attributes:
        shown: name of the object's class, or of the steps of a pipeline. template: state of the fresh object.
        known: classes and functions that its state may name. output: type of the value.
    """

    shown: str
    template: bytes
    known: Known
    driving: Driving
    inputs: tuple[str, ...]
    labelled: bool
    output: str
    kind: ClassVar[str] = "stateful"
    ordered: ClassVar[bool] = True

    @property
    def empty(self) -> Any:
        return 0 if self.driving.counts == DRIFTS else None

    def accepts(self, in_dtype: str | None) -> bool:
        return in_dtype == Row.dtype

    def out_dtype(self, in_dtype: str | None) -> str:
        return self.output

    def init(self) -> State:
        return Running(decode(self.template, self.known))

    def update(self, state: State, value: Any, te_us: int, position: Position) -> State:
        driving, model = self.driving, state.model
        y = value[-1] if self.labelled else None
        x: Any = value[0] if len(self.inputs) == 1 and not driving.by_name else dict(
            zip(self.inputs, value, strict=False)
        )  # fmt: skip
        told = None
        if driving.before:
            told = self._run("tell", driving.tell, model, dict(x) if isinstance(x, dict) else x, y, te_us)
        if not self.labelled or y is not None:
            self._run("learn", driving.learn.on, model, x, y, te_us)
        if not driving.before:
            told = self._run("tell", driving.tell, model, x, y, te_us)
        state.seen += 1
        if driving.counts is not None:
            if told:
                state.drifts += 1
                state.value = state.drifts if driving.counts == DRIFTS else te_us
            elif driving.counts == DRIFTS:
                state.value = state.drifts
        else:
            state.value = self._typed(told)
        return state

    def finish(self, state: State, t_us: int) -> Any:
        return state.value

    def is_empty(self, state: State) -> bool:
        return not state.seen

    def encode(self, state: State) -> bytes:
        import msgspec

        # A map's order means something, and MessagePack keeps it.
        return msgspec.msgpack.encode([state.seen, state.drifts, state.value, encode(state.model, self.known)])

    def decode(self, data: bytes) -> State:
        import msgspec

        seen, drifts, value, model = msgspec.msgpack.decode(data, strict=False)
        return Running(decode(model, self.known), value, seen, drifts)

    @cached_property
    def key(self) -> tuple[Any, ...]:
        template = hashlib.blake2b(self.template, digest_size=16).hexdigest()
        return (self.kind, self.shown, template, self.driving.key, self.inputs, self.labelled, self.output, self._code)

    @property
    def _code(self) -> tuple[Any, ...]:
        """What the user's classes and functions do."""
        classes = []
        for name, kind in sorted(self.known.classes.items()):
            methods = [(n, _code_of(m)) for n, m in sorted(vars(kind).items()) if not n.startswith("__weakref")]
            classes.append((name, tuple((n, code) for n, code in methods if code is not None)))
        functions = [(name, code_key(function)) for name, function in sorted(self.known.functions.items())]
        return tuple(sorted(self.packages.items())), tuple(classes), tuple(functions)

    @cached_property
    def packages(self) -> dict[str, str]:
        """Packages whose objects it holds, by name, with their versions."""
        return versions(self.template)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stateful) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __str__(self) -> str:
        of = ", ".join(f"{name} {version}" for name, version in sorted(self.packages.items()))
        told = "" if not isinstance(self.driving.counts, str) else f" {self.driving.counts}"
        return f"{self.shown}{told} ({of})" if of else f"{self.shown}{told}"

    def _typed(self, told: Any) -> Any:
        if told is None:
            return None
        if isinstance(told, Mapping):
            told = {key: _present(each) for key, each in told.items()}
            told = {key: each for key, each in told.items() if each is not None}
        elif _present(told) is None:
            return None
        try:
            return dtypes.coerce(told, self.output, f"object {self.shown}")
        except DefinitionError as error:
            raise DataError(f"{error} Say output= what it gives, or value= what to take of it.") from error

    def _run(self, step: str, method: Any, model: Any, x: Any, y: Any, te_us: int) -> Any:
        try:
            return method(model, x, y, te_us)
        except Exception as error:
            name = self.driving.learn.name if step == "learn" else getattr(self.driving.value, "name", "value")
            label = f", y={y!r}" if self.labelled else ""
            raise DataError(
                f"Object {self.shown}: its {name} failed for x={x!r}{label} with {type(error).__name__}: {error}. "
                "Leave such events out with where=, or mend the object."
            ) from error


def _present(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _code_of(member: Any) -> Any:
    function = getattr(member, "__func__", member)
    if isinstance(member, property):
        return tuple(code_key(each) for each in (member.fget, member.fset) if each is not None)
    if hasattr(function, "__code__"):
        return code_key(function)
    return repr(member) if isinstance(member, (bool, int, float, str, bytes, tuple)) else None


def stateful(
    shown: str,
    event: str,
    model: Any,
    x: Any,
    y: Any,
    *,
    value: Any = None,
    output: str | type | None = None,
    learn_first: bool | None = None,
    classes: Iterable[type] = (),
) -> tuple[Row, Stateful]:
    """The input and the aggregation of a stateful feature, checked and tried.

    Raises:
        DefinitionError: nothing that learns, a state that cannot rest in a snapshot, random numbers without a seed,
            inputs that are no columns.
    """
    inputs = _inputs(shown, x)
    label = None if y is None else _operand(shown, "y", y)
    operands = (*inputs.values(), *((label,) if label is not None else ()))
    row = Row(event, tuple(inputs), operands, label is not None)
    fresh = _made(shown, model)
    driving = driving_of(fresh, shown, tuple(inputs), label is not None, value, learn_first)
    dtype = _dtype(shown, output) or output_of(driving, fresh, label.dtype if label is not None else None, len(inputs))
    try:
        known = Known.of(fresh, classes=classes)
        template = encode(fresh, known)
        _check_seeds(shown, model, fresh, known)
        made = Stateful(_name(fresh), template, known, driving, tuple(inputs), label is not None, dtype)
        _try(shown, made, row, known)
    except ObjectStateError as error:
        raise DefinitionError(f"{shown}: {type(fresh).__name__} cannot rest in a snapshot: {error}") from error
    return row, made


def _made(shown: str, model: Any) -> Any:
    """The fresh object: the one given, or what the class or function given makes."""
    if not isinstance(model, type) and not (callable(model) and hasattr(model, "__code__")):
        return model
    try:
        return model()
    except Exception as error:
        raise DefinitionError(
            f"{shown}: {getattr(model, '__name__', model)}() failed with {type(error).__name__}: {error}. "
            "Give an object, or a function without parameters that makes one."
        ) from error


def _check_seeds(shown: str, model: Any, fresh: Any, known: Known) -> None:
    """Two fresh objects are the same. Of an object that the caller made, its class is asked for others, if it can."""
    again = None
    if fresh is not model:
        again = (model(), fresh)
    elif callable(getattr(fresh, "clone", None)) and versions(encode(fresh, known)):
        again = (fresh.clone(), fresh.clone())
    if again is not None and encode(again[0], known) != encode(again[1], known):
        raise DefinitionError(_unseeded(shown, fresh))


def _unseeded(shown: str, model: Any) -> str:
    return (
        f"{shown}: two objects {type(model).__name__} that saw the same differ: they draw random numbers without a "
        "seed, or look at something else than their events. A replay would not give what the live flow gave (C3). "
        "Give each of them a seed, such as seed=7."
    )


def _try(shown: str, made: Stateful, row: Row, known: Known) -> None:
    """Two objects get the same made-up events: they must come out the same, and their state must be kept whole.

    An object that cannot work with such events is not judged by them.
    """
    pair = made.init(), made.init()
    told: list[list[Any]] = [[], []]
    for each, values in zip(pair, told, strict=True):
        draw = random.Random(7)
        try:
            for at in range(TRIED):
                made.update(each, _made_up(row, draw), at * 1_000_000, at)
                values.append(each.value)
        except DataError:
            continue
    learned = Known.of(pair[0].model)
    for kind in learned.classes.values():
        known.learn(kind)
    known.methods.update(learned.methods)
    states = [encode(each.model, known) for each in pair]
    # A tree's leaves, say, have generators that they never ask.
    if told[0] != told[1] or not alike(*states):
        raise DefinitionError(_unseeded(shown, pair[0].model))
    if encode(decode(states[0], known), known) != states[0]:
        raise DefinitionError(f"{shown}: a {made.shown} that was saved and loaded is not the same.")


def _made_up(row: Row, draw: random.Random) -> tuple[Any, ...]:
    kinds: dict[str, Callable[[], Any]] = {
        dtypes.FLOAT: lambda: draw.uniform(0, 1),
        dtypes.INT: lambda: draw.randrange(3),
        dtypes.BOOL: lambda: draw.random() < 0.5,
        dtypes.STRING: lambda: draw.choice("abc"),
        dtypes.BYTES: lambda: draw.choice((b"a", b"b")),
        dtypes.TIMESTAMP: lambda: draw.randrange(10**15),
    }
    return tuple(kinds[each.dtype]() for each in row.operands)


def _name(model: Any) -> str:
    steps = getattr(model, "steps", None)
    if isinstance(steps, dict) and steps:
        return " | ".join(map(_name, steps.values()))
    return type(model).__name__


def _inputs(shown: str, x: Any) -> dict[str, Expression]:
    """Names and expressions of x: a column, a list of columns, or a dict of expressions."""
    if isinstance(x, Expression):
        return {x.name if isinstance(x, Column) else "value": _operand(shown, "x", x)}
    if isinstance(x, Mapping):
        named = dict(x)
    elif isinstance(x, Sequence) and not isinstance(x, (str, bytes)):
        for each in x:
            if not isinstance(each, Column):
                raise DefinitionError(
                    f"{shown}: x= lists {each!r}, which has no name. Give columns, or a dict: "
                    "x={'share': Ride.tip / Ride.fare}."
                )
        named = {each.name: each for each in x}
        if len(named) < len(x):
            raise DefinitionError(f"{shown}: x= lists a column twice. List each once.")
    else:
        raise DefinitionError(f"{shown}: say what it learns from: x=[Ride.fare, Ride.km], got {x!r}.")
    if not named:
        raise DefinitionError(f"{shown}: x= is empty. Name at least one column, such as x=[Ride.fare].")
    return {str(name): _operand(shown, f"x[{name!r}]", each) for name, each in named.items()}


def _operand(shown: str, what: str, given: Any) -> Expression:
    if not isinstance(given, Expression):
        raise DefinitionError(f"{shown}: {what}= takes a column or an expression over columns, got {given!r}.")
    return given


def _dtype(shown: str, output: str | type | None) -> str | None:
    if output is None:
        return None
    found = dtypes.OF_PYTHON.get(output) if isinstance(output, type) else output
    if found is None or not dtypes.is_known(found):
        raise DefinitionError(
            f"{shown}: output={output!r} is no type. Use float, int, str, bool or text such as 'map<string,float64>'."
        )
    return found
