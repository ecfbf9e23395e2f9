"""Machine-learning features from event streams.

One definition in Python is replayed, logged for training and served, and gives the same value each way.
Definitions are in `headrace.features`, the lookup client in `headrace.serving`, tests without services in
`headrace.testing`.
"""

from headrace.version import VERSION as __version__

__all__ = ["__version__"]
