"""Definitions: entities, events, sources, windows, aggregations, feature views. Pure data, no I/O, quick to import."""

from headrace.features.aggregations import Aggregation
from headrace.features.custom import CustomAggregation
from headrace.features.entities import Entity
from headrace.features.errors import DataError, DefinitionError, HeadraceError, PoisonError, UnknownColumnError
from headrace.features.events import Event, EventSchema, EventTime, Field
from headrace.features.features import AggregateFeature, DerivedFeature, FeatureGroup, derived
from headrace.features.kafka_source import KafkaSource
from headrace.features.keyed_stream import KeyedStream
from headrace.features.message_parts import MessageBody, MessageHeader, MessageKey, MessageTime
from headrace.features.python_source import PythonSource
from headrace.features.services import FeatureService, Request
from headrace.features.sinks import (
    CallableSink,
    DuckDBSink,
    KafkaSink,
    ParquetSink,
    RedisSink,
    StdoutSink,
    WebhookSink,
)
from headrace.features.sources import FileSource, FrameSource, IterableSource
from headrace.features.steps import Step
from headrace.features.streams import Flow, Stream
from headrace.features.views import FeatureView, ViewDefinition, define, definition
from headrace.features.windows import Hopping, LastN, Lifetime, Session, Sliding, Tumbling

__all__ = [
    "AggregateFeature",
    "Aggregation",
    "CallableSink",
    "CustomAggregation",
    "DataError",
    "DefinitionError",
    "DerivedFeature",
    "DuckDBSink",
    "Entity",
    "Event",
    "EventSchema",
    "EventTime",
    "FeatureGroup",
    "FeatureService",
    "FeatureView",
    "Field",
    "FileSource",
    "Flow",
    "FrameSource",
    "HeadraceError",
    "Hopping",
    "IterableSource",
    "KafkaSink",
    "KafkaSource",
    "KeyedStream",
    "LastN",
    "Lifetime",
    "MessageBody",
    "MessageHeader",
    "MessageKey",
    "MessageTime",
    "ParquetSink",
    "PoisonError",
    "PythonSource",
    "RedisSink",
    "Request",
    "Session",
    "Sliding",
    "StdoutSink",
    "Step",
    "Stream",
    "Tumbling",
    "UnknownColumnError",
    "ViewDefinition",
    "WebhookSink",
    "define",
    "definition",
    "derived",
]
