"""The aggregation methods of columns: `Ride.fare.mean(last="1h")`.

Every method takes the same options, `WindowOptions`; each returns a feature, or a group of features where `last=` or
`over=` is a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from headrace.features.aggregations import Aggregation, Max, Mean, Min, Std, Sum, Var
from headrace.features.decay import DecayedMean, DecayedSum
from headrace.features.frequencies import Distinct, TopK
from headrace.features.ordered import First, FirstN, Last, LastN
from headrace.features.sketches import ApproxDistinct, Quantile
from headrace.features.time import duration_us
from headrace.features.windows import Window

if TYPE_CHECKING:
    from typing import Unpack

    from headrace.features.columns import Expression
    from headrace.features.custom import CustomAggregation
    from headrace.features.features import AggregateFeature, FeatureGroup


class WindowOptions(TypedDict, total=False):
    """Which events a feature covers, and how it is shown.

    Attributes:
        last: width of a sliding window ("30m"), or a list of widths for one feature each. hop: how often the sliding
        window moves on; by default see `windows.default_hop_us`. exact: True for a sliding window that moves with
        every microsecond. over: any window (`Tumbling("1d")`, `Session("30m")`, `LastN(10)`, `Lifetime()`, ...), or a
        list; in place of last=. ending: ask the window this much before now ("1d ago"). where: only rows for which
        this condition is true. by: one result per value of this column, as a map. top: with by=, how many buckets the
        map shows (20), those with most inputs first. default: the value instead of an empty window's or of null.
    """

    last: str | timedelta | Sequence[str | timedelta]
    hop: str | timedelta
    exact: bool
    over: Window | Sequence[Window]
    ending: str | timedelta
    where: Expression
    by: Expression
    top: int
    default: Any


class AggregationMethods:
    """One method per aggregation, mixed into every expression over an event's columns. Null and NaN are ignored."""

    def sum(self, **options: Unpack[WindowOptions]) -> Any:
        """The sum: int64 of integers (null beyond 64 bits), float64 of floats, of a condition how often it is true."""
        return self._aggregate(Sum(), options)

    def mean(self, **options: Unpack[WindowOptions]) -> Any:
        """The mean, float64; of a condition the share of rows for which it is true."""
        return self._aggregate(Mean(), options)

    def min(self, **options: Unpack[WindowOptions]) -> Any:
        """The least value, in the column's type."""
        return self._aggregate(Min(), options)

    def max(self, **options: Unpack[WindowOptions]) -> Any:
        """The greatest value, in the column's type."""
        return self._aggregate(Max(), options)

    def var(self, **options: Unpack[WindowOptions]) -> Any:
        """The variance of the sample; null below two values."""
        return self._aggregate(Var(), options)

    def std(self, **options: Unpack[WindowOptions]) -> Any:
        """The standard deviation of the sample; null below two values."""
        return self._aggregate(Std(), options)

    def first(self, **options: Unpack[WindowOptions]) -> Any:
        """The earliest value; at one instant the one that stands first in the source."""
        return self._aggregate(First(), options)

    def last(self, **options: Unpack[WindowOptions]) -> Any:
        """The newest value; at one instant the one that stands last in the source."""
        return self._aggregate(Last(), options)

    def first_n(self, n: int, **options: Unpack[WindowOptions]) -> Any:
        """The n earliest values, as a list in time order."""
        return self._aggregate(FirstN(n), options)

    def last_n(self, n: int, **options: Unpack[WindowOptions]) -> Any:
        """The n newest values, as a list in time order."""
        return self._aggregate(LastN(n), options)

    def distinct(self, limit: int = 1000, **options: Unpack[WindowOptions]) -> Any:
        """How many different values: exact, and no more than `limit`."""
        return self._aggregate(Distinct(limit), options)

    def approx_distinct(self, lg_k: int = 12, **options: Unpack[WindowOptions]) -> Any:
        """How many different values: exact up to 2**lg_k, beyond with a standard error of 2**(-lg_k/2), 1.6 % at 12."""
        return self._aggregate(ApproxDistinct(lg_k), options)

    def quantile(self, q: float | Sequence[float], *, error: float = 0.01, **options: Unpack[WindowOptions]) -> Any:
        """The q-quantile within a relative `error`; a list of q gives one feature each (name_p50, name_p95)."""
        qs = list(q) if isinstance(q, Sequence) else None
        if qs is None:
            return self._aggregate(Quantile(q, error), options)  # type: ignore[arg-type]
        return self._aggregate([(quantile_label(each), Quantile(each, error)) for each in qs], options)

    def top_k(self, k: int, **options: Unpack[WindowOptions]) -> Any:
        """The k most frequent values with exact counts, as a map, most frequent first."""
        return self._aggregate(TopK(k), options)

    def decayed_sum(self, half_life: str | timedelta, **options: Unpack[WindowOptions]) -> Any:
        """The sum in which an event of age `half_life` weighs half; over=Lifetime() unless a window is given."""
        return self._aggregate(DecayedSum(_half_life(half_life)), options)

    def decayed_mean(self, half_life: str | timedelta, **options: Unpack[WindowOptions]) -> Any:
        """The mean in which an event of age `half_life` weighs half; over=Lifetime() unless a window is given."""
        return self._aggregate(DecayedMean(_half_life(half_life)), options)

    def aggregate(self, aggregation: CustomAggregation, **options: Unpack[WindowOptions]) -> Any:
        """An aggregation of your own; see `CustomAggregation`."""
        from headrace.features.custom import Custom

        return self._aggregate(Custom(aggregation), options)

    def stateful(
        self,
        model: Any,
        *,
        y: Any = None,
        value: Any = None,
        output: str | type | None = None,
        learn_first: bool | None = None,
        classes: Sequence[type] = (),
        **options: Unpack[WindowOptions],
    ) -> Any:
        """What an object that learns from this column tells, per entity; see `Event.stateful`."""
        from headrace.features.building import learn_row
        from headrace.features.stateful import stateful

        call = f"{self}.stateful"
        row, made = stateful(
            call, getattr(self, "event", ""), model, self, y,
            value=value, output=output, learn_first=learn_first, classes=classes,
        )  # fmt: skip
        return learn_row(row, made, options, call)

    def _aggregate(
        self, aggregation: Aggregation | list[tuple[str, Aggregation]], options: WindowOptions
    ) -> AggregateFeature | FeatureGroup:
        # Features are made of expressions and expressions make features: the circle is closed here, at call time.
        from headrace.features.building import aggregate_column

        return aggregate_column(self, aggregation, options)  # type: ignore[arg-type]


def quantile_label(q: float) -> str:
    """The part of a feature's name that names a quantile.

    >>> quantile_label(0.5), quantile_label(0.999)
    ('p50', 'p99_9')
    """
    return f"p{float(q) * 100:.10g}".replace(".", "_").replace("-", "minus_")


def _half_life(value: str | timedelta) -> int:
    from headrace.features.errors import DefinitionError

    us = duration_us(value, "half_life")
    if us == 0:
        raise DefinitionError("half_life: it must be longer than zero, such as '1h'.")
    return us
