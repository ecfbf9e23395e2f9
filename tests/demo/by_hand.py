"""The demo's features once more, from sorted arrays and running sums: shares no code with the engine."""

import numpy as np
import pandas as pd

YEAR_2012 = 1_325_376_000_000_000  # microseconds since 1970


def window_features(
    events: pd.DataFrame, asked: pd.DataFrame, keys: list[str], widths: dict[str, str], hops: dict[str, str]
):
    """Mean delay, share over 15 minutes and count in (floor((t - W) / h) * h, t], and the last delay.

    Args:
        events: keys, delay (minutes), at.
        asked: keys, event_timestamp.
        widths: label -> W; hops: label -> h, as pandas durations.

    Returns:
        A frame beside `asked`: {delay_mean, late_share, flights}_{label} and last_delay (of the widest window); NaN
        where null.
    """
    events = events.sort_values("at", kind="stable")
    groups = pd.MultiIndex.from_frame(events[keys])
    codes, entities = groups.factorize()
    entity = entities.get_indexer(pd.MultiIndex.from_frame(asked[keys]))
    te, t = _microseconds(events["at"]), _microseconds(asked["event_timestamp"])
    order = np.lexsort((te, codes))  # stable: ties keep the order of the stream
    delay = events["delay"].to_numpy()[order]
    line = _on_one_line(codes[order], te[order])
    delays, lates = _running(delay), _running(delay > 15)
    newest = np.searchsorted(line, _on_one_line(entity, t), side="right")
    features = {}
    for label, width in widths.items():
        h = pd.Timedelta(hops[label]) // pd.Timedelta("1us")
        start = (t - pd.Timedelta(width) // pd.Timedelta("1us")) // h * h
        oldest = np.searchsorted(line, _on_one_line(entity, start), side="right")
        n = np.where(entity < 0, 0, newest - oldest)
        with np.errstate(invalid="ignore"):
            features[f"delay_mean_{label}"] = (delays[newest] - delays[oldest]) / n
            features[f"late_share_{label}"] = (lates[newest] - lates[oldest]) / n
        features[f"flights_{label}"] = n
    features["last_delay"] = np.where(n > 0, delay[np.maximum(newest - 1, 0)], np.nan)
    return pd.DataFrame(features, index=asked.index)


def _microseconds(instants: pd.Series) -> np.ndarray:
    return instants.astype("datetime64[us, UTC]").astype("int64").to_numpy()


def _on_one_line(entity: np.ndarray, instant: np.ndarray) -> np.ndarray:
    """Every entity has a stretch of 2**47 microseconds (over four years, from 2012 on) of its own: room for 65,536."""
    assert entity.max(initial=0) < 2**16
    return entity.astype(np.int64) * 2**47 + (instant - YEAR_2012)


def _running(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(values)])
