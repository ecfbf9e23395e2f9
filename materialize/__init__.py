"""From the log to models and online stores: training sets, and online stores filled again."""

from headrace.materialize.online import fill, sync
from headrace.materialize.skew import FeatureSkew, SkewReport, skew_report
from headrace.materialize.training import training_set

__all__ = ["FeatureSkew", "SkewReport", "fill", "skew_report", "sync", "training_set"]
