"""The command `headrace size`."""

from __future__ import annotations

from typing import Annotated

import typer

from headrace.cli.options import AsJson


def size(
    events_per_s: Annotated[float, typer.Option("--events-per-s", min=1e-9, help="At the peak.")],
    entities: Annotated[float, typer.Option("--entities", min=1, help="That are kept, for each view.")],
    features: Annotated[int, typer.Option("--features", min=1, help="Of each view.")] = 10,
    views: Annotated[int, typer.Option("--views", min=1, help="How many.")] = 1,
    record_bytes: Annotated[int, typer.Option("--record-bytes", min=1, help="Of a message.")] = 150,
    layout: Annotated[str, typer.Option("--layout", metavar="feast|packed", help="Of rows in Redis.")] = "feast",
    checkpoint_every: Annotated[
        str, typer.Option("--checkpoint-every", metavar="TIME", help="Between two checkpoints.")
    ] = "10s",
    replicas: Annotated[int, typer.Option("--replicas", min=0, help="Of Redis.")] = 0,
    use: Annotated[float, typer.Option("--use", min=0.01, max=1.0, help="Share of a core at the peak.")] = 0.6,
    as_json: AsJson = False,
) -> None:
    """Say what a live flow of such a load takes: cores, memory, partitions, Redis, checkpoints, log.

    Arithmetic on costs that `python -m benchmarks.costs` measured on one machine; a flow of your own is measured by its
    metrics. docs/scale.md says how it calculates.

    - `headrace size --events-per-s 10000 --entities 1000000`
    - `headrace size --events-per-s 1e6 --entities 1e8 --features 20 --layout packed`
    """
    from headrace.cli.sizing import size_and_show
    from headrace.features.errors import DefinitionError
    from headrace.features.time import duration_us
    from headrace.flows.sizing import Workload

    if layout not in ("feast", "packed"):
        raise DefinitionError(f"--layout {layout}: expected feast or packed.")
    seconds = duration_us(checkpoint_every, "--checkpoint-every") / 1e6
    load = Workload(events_per_s, entities, features, views, record_bytes, layout, seconds, replicas, use)  # type: ignore[arg-type]
    size_and_show(load, as_json=as_json)
