"""Names of the pieces of a plan that say what a piece computes, and nothing about where it lies.

State is saved under these names, so that a changed view finds what it has in common with the one before: a feature
keeps its state when it is renamed, moves to another lane or gets other neighbours. A name is 16 hex digits of what is
computed and the generation of the features that want it (see `compile_view`).
"""

import hashlib
from dataclasses import dataclass

from headrace.features.columns import expr_key
from headrace.features.features import AggregateFeature, DerivedFeature
from headrace.flows.lanes import COUNT, OP_CODE, OP_INPUT, OP_LANE, OP_MASK, WIDTH
from headrace.flows.plan import Mask, Plan
from headrace.flows.state import G_MASK, G_OP0, G_OP1, G_WIN0, G_WIN1, W_EXIT, W_MODE


@dataclass(frozen=True)
class OpName:
    """An aggregation of a group: its first lane, how many it has, and the columns of events that it looks at."""

    name: str
    lane: int
    width: int
    code: int
    inputs: tuple[int, ...]
    mask: int


@dataclass(frozen=True)
class GroupName:
    """A group of the tables. windows: name and number of each. takes: the mask of the events that it takes."""

    name: str
    number: int
    ops: tuple[OpName, ...]
    windows: tuple[tuple[str, int], ...]
    takes: int

    @property
    def inputs(self) -> tuple[int, ...]:
        """Columns of inputs that its ops read."""
        return tuple(dict.fromkeys(i for op in self.ops for i in op.inputs))

    @property
    def masks(self) -> tuple[int, ...]:
        """Columns of masks that its ops look at."""
        return tuple(dict.fromkeys(op.mask for op in self.ops))


@dataclass(frozen=True)
class Names:
    """Of everything that a plan keeps, in the plan's order.

    objects: of the windows of object features. results, given, derived: of the values last written, which depend on
    the default too, of numeric, object and derived features.
    """

    groups: tuple[GroupName, ...]
    inputs: tuple[str, ...]
    masks: tuple[str, ...]
    objects: tuple[str, ...]
    results: tuple[str, ...]
    given: tuple[str, ...]
    derived: dict[str, str]


def name_of(key: object) -> str:
    """16 hex digits of nested tuples of plain values."""
    return hashlib.blake2b(repr(key).encode(), digest_size=8).hexdigest()


def computed(feature: AggregateFeature | DerivedFeature) -> str:
    """What a feature computes, whatever its default."""
    return name_of(feature.key[:-1])


def aged(name: str, since: int) -> str:
    """A name within a generation."""
    return f"{name}.{since}"


def mask_name(mask: Mask) -> str:
    """The name of a mask."""
    return aged(name_of(mask.key()[:2]), mask.since)


def names_of(plan: Plan) -> Names:
    """Names of the pieces of a plan."""
    view, t, since = plan.view, plan.tables, plan.since
    inputs = [name_of((expr_key(e), whole)) for e, whole in zip(plan.inputs, plan.whole, strict=True)]
    masks = [mask_name(mask) for mask in plan.masks]
    groups = []
    for g, key in enumerate(plan.groups):
        row = t.groups[g]
        ops = []
        for o in range(row[G_OP0], row[G_OP1]):
            code, column, mask, lane = (int(t.ops[o, at]) for at in (OP_CODE, OP_INPUT, OP_MASK, OP_LANE))
            reads = () if code == COUNT else (column,)
            # The generation is that of the group.
            what = (code, [inputs[i] for i in reads], masks[mask].partition(".")[0], float(t.half_life[o]))
            ops.append(OpName(name_of(what), lane, WIDTH[code], code, reads, mask))
        windows = [
            (f"{int(t.windows[w, W_MODE])}-{int(t.windows[w, W_EXIT])}", w) for w in range(row[G_WIN0], row[G_WIN1])
        ]
        *what_group, age = key
        groups.append(
            GroupName(aged(name_of(what_group), int(str(age))), g, tuple(ops), tuple(windows), int(row[G_MASK]))
        )

    def written(name: str) -> str:
        return aged(name_of(view.feature(name).key), since.get(name, 0))

    return Names(
        groups=tuple(groups),
        inputs=tuple(inputs),
        masks=tuple(masks),
        objects=tuple(aged(computed(r.feature), since.get(r.name, 0)) for r in plan.objects),
        results=tuple(written(number.name) for number in plan.numbers),
        given=tuple(written(result.name) for result in plan.objects),
        derived={name: name_of((name, view.feature(name).key)) for name in plan.derived},
    )
