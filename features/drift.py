"""Drift: detectors that look at the values of features as they settle.

    class DriverActivity(FeatureView, source=rides, entity=driver, drift={"fare_mean": ADWIN(delta=0.002)}):
        fare_mean = Ride.fare.mean(last="1h")

A detector sees the feature's value in each settled row, of all entities one after the other in the order of the log, so
what it finds depends on the events alone (C18). It changes no value and is no part of the fingerprint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.features.columns import FeatureRef
from headrace.features.dtypes import BOOL, NUMBERS
from headrace.features.errors import DefinitionError, did_you_mean

if TYPE_CHECKING:
    from headrace.features.naming import NamedFeature
    from headrace.features.stateful import Stateful


@dataclass(frozen=True)
class DriftWatch:
    """A detector on a feature. name: of its class, numbered where a feature has several of one."""

    feature: str
    name: str
    detector: Stateful


def drift_watches(shown: str, given: Mapping[str, Any], features: Sequence[NamedFeature]) -> tuple[DriftWatch, ...]:
    """The detectors that `drift=` names.

    Args:
        shown: the view, for errors. given: by feature, a detector of River's (or any with `update` and
            `drift_detected`), or a list of them.

    Raises:
        DefinitionError: no such feature, one without numbers, or what is no detector.
    """
    if not given:
        return ()
    if not isinstance(given, Mapping):
        raise DefinitionError(f"{shown}: drift= is a dict of detectors by feature, such as {{'fare_mean': ADWIN()}}.")
    from headrace.features.stateful import stateful

    known = {each.name: each.feature for each in features if not each.hidden}
    watches: list[DriftWatch] = []
    for feature, detectors in given.items():
        if feature not in known:
            raise DefinitionError(
                f"{shown}: drift= names '{feature}', which it does not have{did_you_mean(feature, known)} "
                f"Its features are: {', '.join(known)}."
            )
        dtype = known[feature].dtype
        if dtype not in (*NUMBERS, BOOL):
            raise DefinitionError(f"{shown}: drift= of '{feature}': it is {dtype}, and detectors look at numbers.")
        for detector in detectors if isinstance(detectors, (list, tuple)) else [detectors]:
            call = f"{shown}: drift= of '{feature}'"
            if not isinstance(detector, type) and not (
                hasattr(detector, "update") and hasattr(detector, "drift_detected")
            ):
                raise DefinitionError(
                    f"{call}: {detector!r} is no detector. Give one of River's, such as ADWIN(), or an object with "
                    "update(x) and drift_detected."
                )
            _, made = stateful(call, shown, detector, FeatureRef(feature, dtype), None)
            if made.driving.counts is None:
                raise DefinitionError(f"{call}: a {made.shown} detects no drift: it has no drift_detected.")
            same = sum(1 for each in watches if each.feature == feature and each.detector.shown == made.shown)
            watches.append(DriftWatch(feature, f"{made.shown}{same + 1}" if same else made.shown, made))
    return tuple(watches)
