"""Rows to model: the lookup client. Importing it loads neither pandas, pyarrow, DuckDB nor numba."""

from headrace.serving.asking import OutOfReachError
from headrace.serving.async_client import AsyncClient
from headrace.serving.caching import RowCache
from headrace.serving.client import Client
from headrace.serving.failing import RetryBudget
from headrace.serving.table import FeatureTable
from headrace.serving.vectors import FeatureVector, FeatureVectors
from headrace.serving.watching import Answer, Watcher

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "FeatureTable",
    "FeatureVector",
    "FeatureVectors",
    "OutOfReachError",
    "RetryBudget",
    "RowCache",
    "Watcher",
]
