"""Rows to model: the lookup client. Importing it loads neither pandas, pyarrow, DuckDB nor numba."""

from headrace.serving.client import Client, OutOfReachError
from headrace.serving.vectors import FeatureVector, FeatureVectors

__all__ = ["Client", "FeatureVector", "FeatureVectors", "OutOfReachError"]
