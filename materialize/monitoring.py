"""Feature monitoring: what a log holds (or a model was given) beside the training set that the model learned from.

For each feature: the share that is missing, the distribution, and how far it has moved from the reference's. One pass
over the rows, in memory bounded by the reference: of that at most `SAMPLED` rows per feature are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.features.errors import DataError, did_you_mean
from headrace.features.views import ViewDefinition
from headrace.materialize.distances import Grid, kolmogorov_smirnov, stability_index
from headrace.materialize.profiles import (
    OTHER,
    CategoryProfile,
    NumberProfile,
    Profile,
    Seen,
    profile_of,
)
from headrace.stores.layout import EVENT_TIMESTAMP
from headrace.stores.sql import name

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from headrace.stores.offline import OfflineLog

SAMPLED = 1_000_000
"""Rows of a reference that are looked at, evenly spread over it; the distribution of more is known to within 0.2 %."""
BATCH_ROWS = 100_000
SHOWN_BINS = 20
SHOWN_CATEGORIES = 10


@dataclass(frozen=True)
class Limits:
    """What sets off an alarm; None: nothing does.

    psi: population stability index. ks: Kolmogorov-Smirnov statistic. missing: how much larger the missing share may
    be than the reference's (than zero without one).
    """

    psi: float | None = 0.25
    ks: float | None = None
    missing: float | None = 0.1


@dataclass(frozen=True)
class Bars:
    """A histogram: labels, and the shares of rows with a value, of the reference and of what is compared."""

    labels: tuple[str, ...]
    reference: tuple[float, ...] | None
    current: tuple[float, ...]


@dataclass(frozen=True)
class FeatureReport:
    """One feature. quantiles: by name, None for what is no number; psi, ks: None where there is nothing to compare.

    alarms: what is beyond the limits, one sentence each.
    """

    view: str
    feature: str
    dtype: str
    seen: Seen
    quantiles: Mapping[str, float] | None
    bars: Bars | None
    reference: Seen | None = None
    reference_quantiles: Mapping[str, float] | None = None
    psi: float | None = None
    ks: float | None = None
    alarms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found. source: what was looked at; reference: beside what; left: features that could not be compared,
    and why."""

    source: str
    reference: str | None
    features: tuple[FeatureReport, ...]
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def alarms(self) -> int:
        """How many features are beyond a limit."""
        return sum(bool(each.alarms) for each in self.features)


class Reference:
    """A training set on the disk: a Parquet file, read once for each feature.

    Columns are named like the features, or `VIEW__FEATURE`.

    Raises:
        DataError: no such file, or no Parquet file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            self._file = pq.ParquetFile(path)
        except FileNotFoundError:
            raise DataError(
                f"There is no reference {path}. Write the training set: training_set(...), or "
                "`pq.write_table(training, 'training.parquet')`."
            ) from None
        except pa.ArrowInvalid as error:
            raise DataError(f"The reference {path} is no Parquet file: {error}") from error

    def column(self, view: str, feature: str) -> str | None:
        """The column of a feature; None: it has none."""
        names = self._file.schema_arrow.names
        return next((each for each in (f"{view}__{feature}", feature) if each in names), None)

    def suggestion(self, feature: str) -> str:
        """Words for a feature that it does not have."""
        return did_you_mean(feature, self._file.schema_arrow.names)

    def parts(self, column: str) -> Iterator[pa.Array]:
        """A column's values, of at most `SAMPLED` rows evenly spread."""
        import pyarrow as pa

        rows = self._file.metadata.num_rows
        at = 0
        for batch in self._file.iter_batches(BATCH_ROWS, columns=[column]):
            values = batch.column(0)
            if rows > SAMPLED:
                places = np.arange(at, at + len(values), dtype=np.int64)
                chosen = (places + 1) * SAMPLED // rows > places * SAMPLED // rows
                values = values.filter(pa.array(chosen))
            at += batch.num_rows
            yield values


def monitor_log(
    view: ViewDefinition,
    log: OfflineLog,
    reference: Reference | None = None,
    *,
    from_us: int | None = None,
    to_us: int | None = None,
    limits: Limits = Limits(),
) -> Report:
    """Look at the settled rows of a view's log with event_timestamp in (from_us, to_us].

    Raises:
        MissingStoreError: the log has nothing of the view.
        DataError: a column of the reference is of another type than its feature.
    """
    names = list(view.feature_names())
    bounds = [f"{EVENT_TIMESTAMP} > make_timestamptz({from_us})"] * (from_us is not None)
    bounds += [f"{EVENT_TIMESTAMP} <= make_timestamptz({to_us})"] * (to_us is not None)
    where = f" WHERE {' AND '.join(bounds)}" if bounds else ""
    watched = {each: _Watched(view.name, each, view.dtypes[each], reference) for each in names}

    def work(connection: duckdb.DuckDBPyConnection, sources: dict[str, str]) -> dict[str, Profile]:
        connection.execute("SET TimeZone = 'UTC'")
        profiles = {each: watched[each].profile() for each in names}
        sql = f"SELECT {', '.join(map(name, names))} FROM {sources[view.name]} AS r{where}"
        for batch in connection.sql(sql).to_arrow_reader(BATCH_ROWS):
            for at, each in enumerate(names):
                profiles[each].add(batch.column(at))
        return profiles

    profiles = log.query([view], work, from_us=from_us, to_us=to_us, tail=False)
    pairs = [(watched[each], profiles[each]) for each in names]
    return _report(f"the log of {view.name}", reference, pairs, limits)


def monitor_tables(
    shown: str,
    features: Mapping[str, tuple[str, str, str]],
    tables: Iterable[pa.Table],
    reference: Reference | None = None,
    *,
    limits: Limits = Limits(),
) -> Report:
    """Look at tables, such as the answers of a feature log.

    Args:
        shown: what they are, for the report. features: by column, the feature's view, name and type.
    """
    watched = {column: _Watched(*feature, reference) for column, feature in features.items()}
    profiles = {column: each.profile() for column, each in watched.items()}
    for table in tables:
        for column, profile in profiles.items():
            if column in table.column_names:
                profile.add(table.column(column))
    return _report(shown, reference, [(watched[each], profiles[each]) for each in features], limits)


class _Watched:
    """A feature, and its reference."""

    def __init__(self, view: str, feature: str, dtype: str, reference: Reference | None) -> None:
        import pyarrow as pa

        self.view, self.feature, self.dtype = view, feature, dtype
        self.reference: Profile | None = None
        self.grid: Grid | None = None
        self.left: str | None = None
        if reference is None:
            return
        column = reference.column(view, feature)
        if column is None:
            self.left = f"{reference.path.name} has no column '{feature}'{reference.suggestion(feature)}"
            return
        made = profile_of(dtype)
        values = []
        try:
            for part in reference.parts(column):
                made.add(part)
                if isinstance(made, NumberProfile):
                    floats = part.cast(pa.float64()).to_numpy(zero_copy_only=False)
                    values.append(floats[np.isfinite(floats)])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"Column '{column}' of {reference.path} cannot be compared with feature '{feature}', which is {dtype}: "
                f"{error}. Rename the column, or leave it out of the reference."
            ) from error
        self.reference = made
        if values and sum(map(len, values)):
            self.grid = Grid(np.concatenate(values))

    def profile(self) -> Profile:
        """An empty profile of what is compared with it."""
        return profile_of(self.dtype, grid=self.grid)


def _report(
    source: str, reference: Reference | None, pairs: Sequence[tuple[_Watched, Profile]], limits: Limits
) -> Report:
    features = tuple(_feature(watched, profile, limits) for watched, profile in pairs)
    left = {f"{each.view}.{each.feature}": each.left for each, _ in pairs if each.left is not None}
    return Report(source, None if reference is None else str(reference.path), features, left)


def _feature(watched: _Watched, profile: Profile, limits: Limits) -> FeatureReport:
    before, psi, ks = watched.reference, None, None
    bars = _bars(profile, before)
    if isinstance(profile, NumberProfile) and watched.grid is not None and profile.cells is not None:
        grid = watched.grid
        if profile.cells.sum():
            edges = grid.edges()
            psi = stability_index(grid.binned(grid.reference, edges), grid.binned(profile.cells, edges))
            ks = kolmogorov_smirnov(grid.reference, profile.cells)
    elif _are_categories(before, profile):
        psi = stability_index(*_by_category(before, profile)[1:])
    return FeatureReport(
        watched.view,
        watched.feature,
        watched.dtype,
        profile.seen,
        profile.quantiles() if isinstance(profile, NumberProfile) else None,
        bars,
        None if before is None else before.seen,
        before.quantiles() if isinstance(before, NumberProfile) else None,
        psi,
        ks,
        tuple(_alarms(profile.seen, None if before is None else before.seen, psi, ks, limits)),
    )


def _are_categories(before: Profile | None, profile: Profile) -> bool:
    """Whether both are categories, with values."""
    return all(isinstance(each, CategoryProfile) and each.counts for each in (before, profile))


def _alarms(seen: Seen, before: Seen | None, psi: float | None, ks: float | None, limits: Limits) -> Iterator[str]:
    if limits.psi is not None and psi is not None and psi > limits.psi:
        yield f"its distribution has moved: PSI {psi:.3g}, limit {limits.psi:g}"
    if limits.ks is not None and ks is not None and ks > limits.ks:
        yield f"its distribution has moved: KS {ks:.3g}, limit {limits.ks:g}"
    share = seen.missing_share - (0.0 if before is None else before.missing_share)
    if limits.missing is not None and share > limits.missing:
        was = "" if before is None else f", {before.missing_share:.1%} in the reference"
        yield f"{seen.missing_share:.1%} of its values are missing{was}"


def _by_category(before: Any, now: Any) -> tuple[list[str], Any, Any]:
    """The reference's most frequent categories and what is left; counts of both."""
    top = [each for each, _ in sorted(before.counts.items(), key=lambda item: (-item[1], item[0]))][:SHOWN_CATEGORIES]
    counts = [[profile.counts[each] for each in top] for profile in (before, now)]
    rest = [sum(profile.counts.values()) - sum(held) for profile, held in zip((before, now), counts, strict=True)]
    if any(rest):
        top = [*top, OTHER]
        counts = [[*held, left] for held, left in zip(counts, rest, strict=True)]
    return top, np.array(counts[0]), np.array(counts[1])


def _bars(profile: Profile, before: Profile | None) -> Bars | None:
    if isinstance(profile, CategoryProfile):
        beside = before if isinstance(before, CategoryProfile) and before.counts else None
        labels, old, new = _by_category(beside or profile, profile)
        return Bars(tuple(labels), _shares(old) if beside else None, _shares(new)) if labels else None
    if not isinstance(profile, NumberProfile):
        return None
    grid, quantiles = profile.grid, profile.quantiles()
    if grid is None or profile.cells is None:
        if quantiles is None:
            return None
        edges = np.unique(np.linspace(quantiles["p1"], quantiles["p99"], SHOWN_BINS - 1))
        return Bars(_labels(edges), None, tuple(profile.shares(edges).tolist()))
    edges = _even_edges(grid.points)
    return Bars(_labels(edges), _shares(grid.binned(grid.reference, edges)), _shares(grid.binned(profile.cells, edges)))


def _labels(edges: Any) -> tuple[str, ...]:
    between = [f"{low:.4g} to {high:.4g}" for low, high in pairwise(edges.tolist())]
    return (f"up to {edges[0]:.4g}", *between, f"above {edges[-1]:.4g}")


def _even_edges(points: Any) -> Any:
    """Edges of equal width over the middle 98 % of a reference, each moved to one of its values."""
    low, high = (points[min(len(points) - 1, int(q * len(points)))] for q in (0.01, 0.99))
    wanted = np.linspace(low, high, SHOWN_BINS - 1)
    return np.unique(points[np.minimum(np.searchsorted(points, wanted), len(points) - 1)])


def _shares(counts: Any) -> tuple[float, ...]:
    return tuple((counts / max(1, counts.sum())).tolist())


def joined(reports: Sequence[Report]) -> Report:
    """Several reports as one."""
    left: dict[str, str] = {}
    for each in reports:
        left.update(each.left)
    shown = ", ".join(dict.fromkeys(each.source for each in reports))
    return Report(shown, reports[0].reference, tuple(f for each in reports for f in each.features), left)
