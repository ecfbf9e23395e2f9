"""Rows to model: the lookup client. Importing it loads neither pandas, pyarrow, DuckDB nor numba."""

from headrace.serving.asking import OutOfReachError
from headrace.serving.async_client import AsyncClient
from headrace.serving.caching import RowCache
from headrace.serving.client import Client
from headrace.serving.failing import RetryBudget
from headrace.serving.log_reading import read_feature_log
from headrace.serving.recording import FeatureLog
from headrace.serving.table import FeatureTable
from headrace.serving.vectors import FeatureVector, FeatureVectors
from headrace.serving.watching import Answer, Watcher

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "FeatureLog",
    "FeatureTable",
    "FeatureVector",
    "FeatureVectors",
    "OutOfReachError",
    "RetryBudget",
    "RowCache",
    "Watcher",
    "read_feature_log",
]
