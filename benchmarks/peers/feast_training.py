"""Feast's `get_historical_features` of its DuckDB offline store, run by training.py with its own interpreter.

    .peers/feast/bin/python feast_training.py FOLDER FILES FEATURE...

FOLDER holds spine.parquet, FILES are the Parquet files of the features. Writes "ready", then for each line read
{"seconds": of one call to an Arrow table, "rows": of it}.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Float64, Int64
from feast.value_type import ValueType

CONFIG = """\
project: bench
provider: local
registry: {folder}/registry.db
offline_store:
  type: duckdb
online_store:
  type: sqlite
  path: {folder}/online.db
entity_key_serialization_version: 3
"""


def main(folder: str, files: str, *features: str) -> None:
    (Path(folder) / "feature_store.yaml").write_text(CONFIG.format(folder=folder))
    driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="fares",
        entities=[driver],
        ttl=timedelta(days=7),
        schema=[Field(name="driver_id", dtype=Int64), *(Field(name=name, dtype=Float64) for name in features)],
        source=FileSource(name="log", path=f"{files}/*/*.parquet", timestamp_field="event_timestamp"),
    )
    store = FeatureStore(repo_path=folder)
    store.apply([driver, view])
    spine = pq.read_table(f"{folder}/spine.parquet").to_pandas()
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        asked = store.get_historical_features(entity_df=spine, features=[f"fares:{name}" for name in features])
        rows = asked.to_arrow().num_rows
        print(json.dumps({"seconds": time.perf_counter() - began, "rows": rows}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
