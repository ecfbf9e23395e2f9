"""`FeatureStore.materialize` of one view of ten features, by the engine that the repository's feature_store.yaml names.

    python feast_materialize.py FOLDER apply          describe the view to Feast
    python feast_materialize.py FOLDER materialize    everything in rows.parquet
    python feast_materialize.py FOLDER open           only what every engine needs: Feast imported, the registry read

Prints seconds, without imports, and the greatest resident memory of the process in MB.
"""

import json
import resource
import sys
import time
import warnings
from datetime import UTC, datetime, timedelta

warnings.filterwarnings("ignore")

from feast import Entity, FeatureStore, FeatureView, Field, FileSource  # noqa: E402
from feast.types import Float64, Int64  # noqa: E402
from feast.value_type import ValueType  # noqa: E402

FEATURES = 10


def apply(store: FeatureStore, folder: str) -> None:
    user = Entity(name="user_id", join_keys=["user_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="fv",
        entities=[user],
        ttl=timedelta(0),
        schema=[
            Field(name="user_id", dtype=Int64),
            *(Field(name=f"f{at}", dtype=Int64 if at % 2 else Float64) for at in range(FEATURES)),
        ],
        source=FileSource(name="rows", path=f"{folder}/rows.parquet", timestamp_field="event_timestamp"),
    )
    store.apply([user, view])


def main(folder: str, what: str) -> None:
    store = FeatureStore(repo_path=folder)
    seconds = 0.0
    if what == "apply":
        apply(store, folder)
    else:
        store.get_feature_view("fv")
        provider = store._get_provider()
        assert all((provider.batch_engine, provider.online_store, provider.offline_store))
    if what == "materialize":
        began = time.perf_counter()
        store.materialize(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC))
        seconds = time.perf_counter() - began
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "mb": most}))


if __name__ == "__main__":
    main(*sys.argv[1:])
