"""Any function of the user's as a sink."""

from collections.abc import Mapping
from typing import Any

from headrace.features.errors import PoisonError
from headrace.features.sinks import CallableSink
from headrace.flows.sinks.delivery import RetryError
from headrace.flows.sinks.protocol import SinkPlace, SinkRows


class FunctionTarget:
    """Calls the function of a CallableSink."""

    def __init__(self, sink: CallableSink, at: SinkPlace) -> None:
        self._sink, self._at = sink, at
        self._called = getattr(sink.function, "__qualname__", type(sink.function).__name__)
        self.shown, self.batch = f"function {self._called}", sink.batch

    def open(self, state: bytes | None) -> None:
        """Nothing to be done."""

    def send(self, rows: SinkRows) -> Mapping[int, str]:
        given = _as(rows, self._sink.as_)
        try:
            if self._sink.ids:
                self._sink.function(given, self._at.ids(rows))
            else:
                self._sink.function(given)
        except PoisonError as error:
            raise PoisonError(f"function {self._called} refuses it: {error}") from error
        except Exception as error:  # whatever the user's function raises
            raise RetryError(f"{type(error).__name__}: {error}") from error
        return {}

    def flushed(self) -> bytes:
        return b""

    def committed(self) -> None:
        """The function has had the rows already."""

    def close(self) -> None:
        """The function has no end."""


def _as(rows: SinkRows, form: str) -> Any:
    if form == "rows":
        return rows.table.to_pylist()
    if form == "pandas":
        return rows.table.to_pandas()
    if form == "polars":
        import polars

        return polars.from_arrow(rows.table)
    return rows.table
