"""Feast's description of the rows of served_views.py, which lie in Redis in its own layout already.

.peers/feast/bin/python feast_repository.py FOLDER REDIS_PORT
"""

import sys
from datetime import timedelta
from pathlib import Path

from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

CONFIG = """\
project: bench
provider: local
registry: {folder}/registry.db
online_store:
  type: redis
  connection_string: 127.0.0.1:{port}
entity_key_serialization_version: 3
"""


def main(folder: str, port: str) -> None:
    (Path(folder) / "feature_store.yaml").write_text(CONFIG.format(folder=folder, port=port))
    user = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="fv",
        entities=[user],
        ttl=timedelta(0),
        schema=[
            Field(name="user_id", dtype=Int64),
            *(Field(name=f"f{at}", dtype=Int64 if at % 2 else Float64) for at in range(50)),
        ],
        source=FileSource(name="history", path=f"{folder}/history.parquet", timestamp_field="event_timestamp"),
    )
    FeatureStore(repo_path=folder).apply([user, view])


if __name__ == "__main__":
    main(*sys.argv[1:])
