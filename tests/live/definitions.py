"""Described views as a file of feature views over Kafka, for processes of their own."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.features import Entity, FeatureView, KafkaSource, ViewDefinition
from headrace.features.sources import Source
from headrace.features.views import definition
from tests.live.streams import Topic
from tests.oracle.definitions import Happening, features_of, judging, us
from tests.oracle.described import Stream, View

FILE = """\
# The views of a test, as `headrace run` reads them.
from tests.live.definitions import LiveSource, view_class
from tests.live.streams import Topic
from tests.oracle.described import MISSING, Derived, Feature, Stream, View, Where, Window

sources = {sources!r}
for number, source in enumerate(sources):
    kafka = source.kafka({bootstrap!r})
    for name, view in source.views.items():
        globals()[name] = view_class(name, view, kafka)
"""


@dataclass(frozen=True)
class LiveSource:
    """A source of a flow with the views on it; all its topics are keyed alike.

    `views` is name -> view; their own `stream` is that of the source.
    """

    topics: Sequence[Topic]
    views: Mapping[str, View]
    stream: Stream = field(default_factory=Stream)
    options: Mapping[str, Any] = field(default_factory=dict)

    def kafka(self, bootstrap: str) -> KafkaSource:
        return KafkaSource(
            [topic.name for topic in self.topics],
            Happening,
            keyed_by=list(self.topics[0].keyed_by) or None,
            bootstrap_servers=bootstrap,
            **judging(self.stream),
            **self.options,
        )

    def definitions(self, bootstrap: str) -> dict[str, ViewDefinition]:
        source = self.kafka(bootstrap)
        return {name: definition(view_class(name, view, source)) for name, view in self.views.items()}


def view_class(name: str, view: View, source: Source) -> type[FeatureView]:
    """The described view as a class, the way an author writes it."""
    options = {
        "name": name,
        "source": source,
        "entity": Entity("_".join(view.keys), keys=list(view.keys)),
        "ttl": None if view.ttl is None else us(view.ttl),
        "log_every": None if view.log_every is None else us(view.log_every),
    }
    return types.new_class(name, (FeatureView,), options, lambda body: body.update(features_of(view)))


def write(path: Path, sources: Sequence[LiveSource], bootstrap: str) -> Path:
    """The file of these sources' views."""
    path.write_text(FILE.format(sources=list(sources), bootstrap=bootstrap))
    return path
