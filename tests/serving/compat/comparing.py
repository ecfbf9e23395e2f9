"""When two answers are equal."""

import math
from datetime import datetime
from typing import Any

from tests.serving.compat.rows import Told
from tests.serving.compat.ways import Answer, micros


def same(found: Answer, expected: Answer) -> None:
    """Equal to the last bit, minus zero included, and of the same Python types."""
    assert list(found) == list(expected)
    for name, cells in expected.items():
        assert list(map(exact, found[name])) == list(map(exact, cells)), name


def alike(found: Answer, expected: Answer) -> None:
    """Equal to the last bit, but for what decays: there the oracle computes 2^-x otherwise."""
    assert list(found) == list(expected)
    for name, cells in expected.items():
        for mine, theirs in zip(found[name], cells, strict=True):
            if name in ("shops__fade", "shops__double") and theirs.value is not None and math.isfinite(theirs.value):
                assert (mine.status, mine.event_time) == (theirs.status, theirs.event_time), name
                assert math.isclose(mine.value, theirs.value, rel_tol=1e-12, abs_tol=1e-320), name
            else:
                assert exact(mine) == exact(theirs), name


def unsigned(answer: Answer) -> Answer:
    """Without event times, which a training set does not tell, and without the sign of zero, which DuckDB does not keep
    in lists."""
    return {name: [Told(_unsigned(cell.value), cell.status, None) for cell in cells] for name, cells in answer.items()}


def _unsigned(value: Any) -> Any:
    if isinstance(value, list):
        return [_unsigned(each) for each in value]
    if isinstance(value, dict):
        return {key: _unsigned(each) for key, each in value.items()}
    return 0.0 if isinstance(value, float) and value == 0 else value


def exact(told: Told) -> str:
    """A text that is equal for equal values of equal types only; whose UTC it is does not count."""
    return f"{told.status} {told.event_time} {exact_value(told.value)}"


def exact_value(value: Any) -> str:
    """As `exact`, of a value; the order of a map does not count."""
    if isinstance(value, datetime):
        return f"instant {micros(value)}"
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{exact_value(key)}: {exact_value(each)}' for key, each in value.items()))}}}"
    return f"[{', '.join(map(exact_value, value))}]" if isinstance(value, list) else repr(value)
