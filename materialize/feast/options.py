"""What `batch_engine` in feature_store.yaml may say."""

from __future__ import annotations

from feast.repo_config import FeastConfigBaseModel
from pydantic import Field, StrictBool, StrictStr


class HeadraceEngineConfig(FeastConfigBaseModel):
    """Options of the engine; any other name is an error.

        batch_engine:
          type: headrace.materialize.feast.HeadraceEngine
          memory_limit: 512MB

    Attributes:
        write_batch: rows handed to the online store at a time; by default what suits Redis, and for other stores
        Feast's `online_write_batch_size` or 10,000. memory_limit: of DuckDB, which sorts out the newest rows and
        spills what is more into the folder for temporary files. threads: of DuckDB; by default one for each core.
        expire: an entity's key in Redis ends when the ttl of its views is over; not where one of them has none.
    """

    type: StrictStr = "headrace.materialize.feast.HeadraceEngine"
    write_batch: int | None = Field(default=None, ge=1)
    memory_limit: StrictStr = "512MB"
    threads: int | None = Field(default=None, ge=1)
    expire: StrictBool = False
