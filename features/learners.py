"""How an object that learns is driven: which of its methods takes an event, which tells the value, and in which order.

By what the object has, the first of these that fits:

    drift_detected, update         a drift detector: learns, then counts the drifts (or tells when the newest was)
    score_one, learn_one           an anomaly detector: scores the event, then learns from it
    predict_one, learn_one         a model: predicts, then learns
    transform_one, learn_one       a transformer: learns, then transforms
    update, get                    a statistic: updates, then tells its value
    learn, value                   an object of the user's: learns, then tells; value(x) is asked before it learns

The names ending in _one get a dict of the inputs by name, as River wants them; the others get the value of the one
column, or a dict where `x=` names several. A method with a parameter `y` gets the label, one with `t` the event's time
(a datetime in UTC without a zone, as River has them).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from headrace.features import dtypes
from headrace.features.code import code_key
from headrace.features.errors import DefinitionError

DRIFTS, LAST_DRIFT = "drifts", "last_drift"
"""What a drift detector's feature may tell: how many drifts there were, and when the newest was."""
_EPOCH = datetime(1970, 1, 1)  # naive, UTC: so are the instants that River compares it with
_FORMS = (
    ("update", "drift_detected", False),
    ("learn_one", "score_one", True),
    ("learn_one", "predict_one", True),
    ("learn_one", "transform_one", False),
    ("update", "get", False),
    ("learn", "value", None),
)


@dataclass(frozen=True)
class Call:
    """A method (or attribute) of the object, and what it is given.

    name: of the method. takes: of "x", "y" and "t" those that it gets. called: False for an attribute.
    """

    name: str
    takes: tuple[str, ...]
    called: bool = True

    def on(self, model: Any, x: Any, y: Any, te_us: int) -> Any:
        """What the object's method gives for one event."""
        found = getattr(model, self.name)
        if not self.called:
            return found
        positional = [x] if "x" in self.takes else []
        named: dict[str, Any] = {}
        if "y" in self.takes:
            positional.append(y)
        if "t" in self.takes:
            named["t"] = _EPOCH + timedelta(microseconds=te_us)
        return found(*positional, **named)


@dataclass(frozen=True)
class Driving:
    """How the object is driven.

    learn: the method that takes an event. value: what tells the value, or a function of (object, x). before: whether
    it is asked before the object learns. by_name: whether x is a dict also of one column. counts: "drifts" or
    "last_drift" of a detector, whose value is kept beside it; else None. only: of what a transformer of one column
    gives, the value of that name.
    """

    learn: Call
    value: Call | Callable[[Any, Any], Any]
    before: bool
    by_name: bool
    counts: str | None = None
    only: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        told = (self.value.name, self.value.takes) if isinstance(self.value, Call) else code_key(self.value)
        return (self.learn.name, self.learn.takes, told, self.before, self.by_name, self.counts, self.only)

    def tell(self, model: Any, x: Any, y: Any, te_us: int) -> Any:
        """The object's value for an event."""
        told = self.value.on(model, x, y, te_us) if isinstance(self.value, Call) else self.value(model, x)
        return told if self.only is None or told is None else told.get(self.only)


def driving_of(
    model: Any, shown: str, inputs: tuple[str, ...], labelled: bool, value: Any, learn_first: bool | None
) -> Driving:
    """How to drive an object.

    Args:
        model: the object. shown: the call, for errors. inputs: names of what x holds. labelled: whether there is y.
        value: as given to `stateful`: a method's or attribute's name, a function of (object, x), or None.
        learn_first: as given; None: by what the object is.

    Raises:
        DefinitionError: no method that learns, none that tells; a label it needs and does not get, or the other way.
    """
    kind = type(model).__name__
    last = _last_step(model)
    form = next((each for each in _FORMS if _has(last, each[0]) and (value is not None or _has(last, each[1]))), None)
    if form is None:
        raise DefinitionError(
            f"{shown}: a {kind} has no methods that Headrace knows: learn_one with score_one, predict_one or "
            "transform_one, update with get or drift_detected, or learn with value. Give it learn(x) and value()."
        )
    learn_name, value_name, before = form
    detector = _has(last, "drift_detected") and learn_name == "update"
    counts = None
    told: Any
    if detector and value in (None, DRIFTS, LAST_DRIFT):
        counts, value = value or DRIFTS, "drift_detected"
    if value is None or isinstance(value, str):
        value_name = value or value_name
        if not hasattr(model, value_name):
            raise DefinitionError(f"{shown}: value={value_name!r}: a {kind} has none such. Name one of its methods.")
        told = _call(model, last, value_name, labelled)
        if value is not None and not detector:
            before = "x" in told.takes and learn_name == "learn_one" and value_name != "transform_one"
    elif callable(value):
        told = value
        before = learn_name == "learn_one" if before is not None else False
    else:
        raise DefinitionError(f"{shown}: value={value!r}: expected a method's name or a function of (object, x).")
    if before is None:
        before = isinstance(told, Call) and "x" in told.takes
    by_name = learn_name == "learn_one"
    if len(inputs) > 1 and learn_name == "update" and type(model).__module__.startswith("river."):
        raise DefinitionError(
            f"{shown}: {kind}.update takes numbers, not rows of {len(inputs)} columns. Give it one column, and where "
            "it takes two numbers the other as y=."
        )
    learn = _call(model, last, learn_name, labelled)
    _check_label(model, last, learn, shown, labelled)
    if "x" not in learn.takes:
        raise DefinitionError(f"{shown}: {kind}.{learn_name}() takes nothing. It needs a parameter for the event.")
    only = inputs[0] if value_name == "transform_one" and len(inputs) == 1 and isinstance(told, Call) else None
    first = (not before) if learn_first is None else learn_first
    return Driving(learn, told, not first, by_name, counts, only)


def output_of(driving: Driving, model: Any, label: str | None, inputs: int) -> str:
    """The type of the value where none is given. label: type of y, None without."""
    if driving.counts is not None:
        return dtypes.INT if driving.counts == DRIFTS else dtypes.TIMESTAMP
    if isinstance(driving.value, Call):
        name = driving.value.name
        if name == "drift_detected":
            return dtypes.BOOL
        if name == "transform_one" and inputs > 1:
            return dtypes.map_of(dtypes.STRING, dtypes.FLOAT)
        if name == "predict_one":
            if label is None:
                return dtypes.INT  # a cluster's number
            if _has(_last_step(model), "predict_proba_one"):
                return label
        if name == "predict_proba_one":
            return dtypes.map_of(label or dtypes.STRING, dtypes.FLOAT)
    return dtypes.FLOAT


def _last_step(model: Any) -> Any:
    """The step of a River pipeline that gives the value; of any other object itself."""
    steps = getattr(model, "steps", None)
    if isinstance(steps, dict) and steps and type(model).__module__.startswith("river."):
        return _last_step(list(steps.values())[-1])
    return model


def _has(model: Any, name: str) -> bool:
    return hasattr(model, name)


def _parameters(model: Any, name: str) -> dict[str, inspect.Parameter] | None:
    try:
        return dict(inspect.signature(getattr(model, name)).parameters)
    except (TypeError, ValueError):
        return None


def _named(parameters: dict[str, inspect.Parameter]) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in parameters.values() if each.kind in kinds]


def _numbers(model: Any, name: str) -> int:
    """How many values a method must be given."""
    parameters = _parameters(model, name) or {}
    return sum(each.default is inspect.Parameter.empty for each in _named(parameters))


def _call(model: Any, last: Any, name: str, labelled: bool) -> Call:
    if not callable(getattr(model, name)):
        return Call(name, (), called=False)
    takes: list[str] = []
    # A pipeline's own methods take whatever its last step does.
    own, inner = _parameters(model, name), _parameters(last, name) if _has(last, name) else None
    if own is None:
        return Call(name, ("x", "y") if labelled else ("x",))
    plain = _named(own)
    open_ended = any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in own.values())
    if plain or open_ended:
        takes.append("x")
    second = [each for each in plain[1:] if each.name not in ("t", "w")] or (
        [each for each in _named(inner)[1:] if each.name not in ("t", "w")] if inner and model is not last else []
    )
    if labelled and (second or open_ended) and (not second or second[0].name in ("y", "y_pred", "y_true")):
        takes.append("y")
    if "t" in own:
        takes.append("t")
    return Call(name, tuple(takes))


def _check_label(model: Any, last: Any, learn: Call, shown: str, labelled: bool) -> None:
    kind = type(last).__name__
    required = getattr(model, "_supervised", False) is True or (
        learn.name != "update" and any(each.name == "y" and each.default is inspect.Parameter.empty
                                       for each in _named(_parameters(last, learn.name) or {}))
    )  # fmt: skip
    if learn.name == "update" and not labelled and _numbers(last, "update") == 2:
        required = True
    if required and not labelled:
        raise DefinitionError(f"{shown}: {kind}.{learn.name} learns from a label too. Say which, such as y=Ride.tip.")
    if labelled and "y" not in learn.takes:
        raise DefinitionError(f"{shown}: {kind}.{learn.name} takes no label. Leave y= out, or put it into x=.")
