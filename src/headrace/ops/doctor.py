"""The doctor: every check of a flow, before it starts or when something is wrong. It changes nothing that stays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headrace.features.kafka_source import KafkaSource
from headrace.features.views import ViewDefinition
from headrace.ops.checks.data import check_data
from headrace.ops.checks.finding import Finding, carried_out
from headrace.ops.checks.machine import check_kernels, check_packages, check_port, check_python
from headrace.ops.checks.server import check_server
from headrace.ops.settings import Configuration


def examine(config: Configuration, views: Sequence[ViewDefinition], flow: str, group: str) -> Iterator[Finding]:
    """The findings one by one, as they come; servers that do not answer take some seconds.

    Args:
        config: of the flow. views: of its file; none: only what needs no views is looked at. flow: its name. group: how
            the names of its consumer groups begin.
    """
    yield from carried_out("machine", "headrace", check_python)
    yield from carried_out("machine", "packages", lambda: check_packages(config))
    yield from carried_out("machine", "kernels", check_kernels)
    yield from carried_out("machine", "metrics", lambda: check_port(config))
    yield from carried_out("data", config.offline.data, lambda: check_data(config.offline.data))
    yield from _kafka(config, views, flow, group)
    yield from _redis(config)
    yield from carried_out("server", "settings", lambda: check_server(config))


def _kafka(config: Configuration, views: Sequence[ViewDefinition], flow: str, group: str) -> Iterator[Finding]:
    sources: dict[str, tuple[KafkaSource, list[ViewDefinition]]] = {}
    for view in views:
        if isinstance(view.source, KafkaSource):
            sources.setdefault(view.source.name, (view.source, []))[1].append(view)
    if views and not sources:
        yield Finding("ok", "kafka", "sources", "the views read no topic: headrace run replays them")
        return
    try:
        from headrace.ops.checks.kafka import check_bootstrap, check_source
    except ModuleNotFoundError as missing:
        yield Finding("fail", "kafka", str(missing.name), "is not installed", "pip install 'headrace[kafka]'")
        return
    if not views:
        yield from carried_out("kafka", "brokers", lambda: check_bootstrap(config.kafka))
    for source, its in sources.values():

        def check(source: KafkaSource = source, its: list[ViewDefinition] = its) -> Iterable[Finding]:
            return check_source(source, its, config, flow, f"{group}.{source.name}")

        yield from carried_out("kafka", source.name, check)


def _redis(config: Configuration) -> Iterator[Finding]:
    url = config.online.url
    if url is None:
        yield Finding("ok", "redis", "online store", "embedded, in the data folder: one machine only")
        return
    try:
        from redis.exceptions import RedisError

        from headrace.ops.checks.redis import check_redis, unreachable
    except ModuleNotFoundError as missing:
        yield Finding("fail", "redis", str(missing.name), "is not installed", "pip install 'headrace[redis]'")
        return

    def check() -> Iterator[Finding]:
        try:
            yield from check_redis(url)
        except (RedisError, OSError) as error:
            yield unreachable(url, error)

    yield from carried_out("redis", "online store", check)
