"""Sinks at work: rows of a stream on their way to files, tables, servers and functions.

Each takes rows as they come and settles with the flow's checkpoint, in two steps:

    write, write, ...      rows wait, or are staged, or are sent at once
    flush                  all are acknowledged or staged durably; what a restart must know goes into the checkpoint
    (the checkpoint counts)
    committed              what was staged becomes visible

A crash before the checkpoint counts: what was staged is dropped, and the rows come again. A crash after: `open`
finishes what the checkpoint promised.
"""

from headrace.features.errors import DefinitionError
from headrace.features.sinks import (
    CallableSink,
    DuckDBSink,
    KafkaSink,
    ParquetSink,
    RedisSink,
    Sink,
    StdoutSink,
    WebhookSink,
)
from headrace.flows.sinks.protocol import SinkPlace, SinkRows, SinkWriter

__all__ = ["SinkPlace", "SinkRows", "SinkWriter", "writer_of"]


def writer_of(sink: Sink, at: SinkPlace) -> SinkWriter:
    """The writer of a sink; nothing is opened yet. A client library is imported only for the sink that needs it."""
    if isinstance(sink, ParquetSink):
        from headrace.flows.sinks.parquet import ParquetWriter

        return ParquetWriter(sink, at)
    if isinstance(sink, DuckDBSink):
        from headrace.flows.sinks.table import TableWriter

        return TableWriter(sink, at)
    if isinstance(sink, StdoutSink):
        from headrace.flows.sinks.lines import LineWriter

        return LineWriter(at)
    from headrace.flows.sinks.delivery import Delivery

    if isinstance(sink, KafkaSink):
        from headrace.flows.sinks.topic import TopicTarget

        return Delivery(TopicTarget(sink, at), at)
    if isinstance(sink, RedisSink):
        from headrace.flows.sinks.keyed import KeyedTarget

        return Delivery(KeyedTarget(sink, at), at)
    if isinstance(sink, WebhookSink):
        from headrace.flows.sinks.webhook import WebhookTarget

        return Delivery(WebhookTarget(sink, at), at)
    if isinstance(sink, CallableSink):
        from headrace.flows.sinks.function import FunctionTarget

        return Delivery(FunctionTarget(sink, at), at)
    raise DefinitionError(
        f"{type(sink).__name__} '{sink.name}' is no sink that a flow knows. Write CallableSink(function), which takes "
        "any function of rows."
    )
