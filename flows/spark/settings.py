"""How a flow is run on Spark."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.features.errors import DefinitionError


@dataclass(frozen=True)
class SparkSettings:
    """What `run_on_spark` is told besides the flow's own settings.

    Attributes:
        master: as of spark-submit, such as "local[2]" or "spark://host:7077"; None: what the session that is there says
            (spark-submit, a notebook), or "local[*]".
        every_s: seconds from the beginning of a turn to that of the next, where nothing is left to be read; a turn with
            more to come follows at once.
        max_events: most messages of a turn, over all partitions.
        shards: tasks of each part of a flow that is computed after a shuffle; fixed when the flow begins. None: as many
            as its source has partitions.
        conf: Spark's own settings.
    """

    master: str | None = None
    every_s: float = 1.0
    max_events: int = 400_000
    shards: int | None = None
    conf: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.every_s <= 0:
            raise DefinitionError(f"Spark: every_s is {self.every_s}, expected seconds above 0.")
        if self.max_events < 1:
            raise DefinitionError(f"Spark: max_events is {self.max_events}, expected 1 or more.")
        if self.shards is not None and not 1 <= self.shards <= 4096:
            raise DefinitionError(f"Spark: shards is {self.shards}, expected 1 to 4096.")
