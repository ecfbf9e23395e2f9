"""A Feast repository's definitions, with Feast's own names only: what drivers earn, and how that moves."""

from datetime import timedelta

from feast import Entity, FeatureView, Field, FileSource, PushSource, StreamFeatureView
from feast.aggregation import Aggregation
from feast.types import Float64, Int64, String
from feast.value_type import ValueType

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)

driver = Entity(name="driver", join_keys=["driver_id"], value_type=ValueType.INT64)
rides = FileSource(name="rides", path="rides.parquet", timestamp_field="at")

newest_ride = FeatureView(
    name="newest_ride",
    entities=[driver],
    source=rides,
    ttl=timedelta(days=1),
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="fare", dtype=Float64),
        Field(name="district", dtype=String),
    ],
)

earnings = StreamFeatureView(
    name="earnings",
    entities=[driver],
    source=PushSource(name="rides_pushed", batch_source=rides),
    timestamp_field="at",
    ttl=timedelta(days=1),
    aggregations=[
        Aggregation(column="fare", function="sum", time_window=HOUR, slide_interval=MINUTE),
        Aggregation(column="fare", function="count", time_window=HOUR, slide_interval=MINUTE, name="rides_1h"),
        Aggregation(column="fare", function="mean", time_window=6 * HOUR, name="mean_fare_6h"),
    ],
    schema=[
        Field(name="driver_id", dtype=Int64),
        Field(name="sum_fare_3600s", dtype=Float64),
        Field(name="rides_1h", dtype=Int64),
        Field(name="mean_fare_6h", dtype=Float64),
    ],
)
