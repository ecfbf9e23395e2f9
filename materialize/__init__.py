"""From the log to models and online stores: training sets, and online stores filled again."""

from headrace.materialize.online import sync
from headrace.materialize.training import training_set

__all__ = ["sync", "training_set"]
