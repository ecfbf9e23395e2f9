"""Definitions: entities, events, sources, windows, aggregations, feature views. Pure data, no I/O, quick to import."""

from headrace.features.aggregations import Aggregation
from headrace.features.custom import CustomAggregation
from headrace.features.entities import Entity
from headrace.features.errors import DataError, DefinitionError, HeadraceError, UnknownColumnError
from headrace.features.events import Event, EventSchema, EventTime, Field
from headrace.features.features import AggregateFeature, DerivedFeature, FeatureGroup, derived
from headrace.features.kafka_source import KafkaSource
from headrace.features.message_parts import MessageBody, MessageHeader, MessageKey, MessageTime
from headrace.features.services import FeatureService, Request
from headrace.features.sources import FileSource, FrameSource, IterableSource
from headrace.features.views import FeatureView, ViewDefinition, define, definition
from headrace.features.windows import Hopping, LastN, Lifetime, Session, Sliding, Tumbling

__all__ = [
    "AggregateFeature",
    "Aggregation",
    "CustomAggregation",
    "DataError",
    "DefinitionError",
    "DerivedFeature",
    "Entity",
    "Event",
    "EventSchema",
    "EventTime",
    "FeatureGroup",
    "FeatureService",
    "FeatureView",
    "Field",
    "FileSource",
    "FrameSource",
    "HeadraceError",
    "Hopping",
    "IterableSource",
    "KafkaSource",
    "LastN",
    "Lifetime",
    "MessageBody",
    "MessageHeader",
    "MessageKey",
    "MessageTime",
    "Request",
    "Session",
    "Sliding",
    "Tumbling",
    "UnknownColumnError",
    "ViewDefinition",
    "define",
    "definition",
    "derived",
]
