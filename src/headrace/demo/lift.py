"""What the features are worth: one model with the timetable alone, the same model with the features beside it.

The question is whether a flight leaves more than 15 minutes late. Both models learn on January to August and are judged
on September to December, so no day is in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import average_precision_score, roc_auc_score
from threadpoolctl import threadpool_limits

TIMETABLE = ("hour", "minute", "weekday", "distance", "carrier", "origin", "dest")
"""What is known of a flight without any stream. The month is left out: a tree can't carry it over to unseen months."""

LAST_MONTH_OF_TRAINING = 8


@dataclass(frozen=True)
class Judged:
    """A model's standing on flights it has not seen.

    Attributes:
        columns: what it was given.
        probability: (n,) float64, that a flight leaves late; late: (n,) bool, whether it did.
        roc_auc: the chance that a late flight is ranked above a punctual one; 0.5 by guessing.
        average_precision: area under the precision-recall curve; by guessing, the share of late flights.
    """

    columns: tuple[str, ...]
    probability: np.ndarray
    late: np.ndarray
    roc_auc: float
    average_precision: float


def judge(flights: pd.DataFrame, columns: Sequence[str]) -> Judged:
    """Trains on the first months, judges on the later ones.

    Args:
        flights: `columns`, month and late, a row for each flight. Values may be missing: trees have a branch for that.
    """
    values = np.column_stack([_numbers(flights[name]) for name in columns])
    is_category = [flights[name].dtype.kind not in "biuf" for name in columns]
    late = flights["late"].to_numpy(dtype=bool)
    early_months = flights["month"].to_numpy() <= LAST_MONTH_OF_TRAINING
    model = HistGradientBoostingClassifier(
        learning_rate=0.2,
        max_iter=40,
        max_leaf_nodes=15,
        categorical_features=is_category,
        early_stopping=False,
        random_state=0,
    )
    # One thread: on a busy machine OpenMP's threads spin while they wait for each other and take ten times as long.
    with threadpool_limits(1, user_api="openmp"):
        model.fit(values[early_months], late[early_months])
        probability = model.predict_proba(values[~early_months])[:, 1]
    judged = late[~early_months]
    return Judged(
        columns=tuple(columns),
        probability=probability,
        late=judged,
        roc_auc=float(roc_auc_score(judged, probability)),
        average_precision=float(average_precision_score(judged, probability)),
    )


def late_among_flagged(judged: Judged, share: float = 0.1) -> float:
    """Of the flights in the riskiest `share`, the part that did leave late."""
    flagged = np.argsort(-judged.probability, kind="stable")[: max(1, round(share * len(judged.late)))]
    return float(judged.late[flagged].mean())


def _numbers(column: pd.Series) -> np.ndarray:
    """A column as float64; a text column as the number of its value in sorted order."""
    if column.dtype.kind in "biuf":
        return np.asarray(column.to_numpy(dtype="float64", na_value=np.nan))
    return np.asarray(column.astype("category").cat.codes, dtype="float64")
