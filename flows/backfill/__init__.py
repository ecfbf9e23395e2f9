"""Backfill: views over a whole history at once, entity by entity, on all cores.

    source -> admission -> events by bucket        running.py, stage.py      a bucket has all events of its entities
                               |
                           rows and state          buckets.py                many buckets side by side
                               |
    log  <- rows in order of instant               merging.py
    online store, checkpoint  <- state of all      running.py

A replay takes the events in the order in which they came, and keeps both readings of each view for every batch. Here
nobody asks before the end, so each entity's events go through the settled reading in one go: the same kernels, the
same rows, in less time. It ends as a replay does; `headrace run` goes on from there.

Where the views are over Kafka topics with a history in files, the same is done for each part of the live flow's log:

    history -> partitions -> admission of each part          sharing.py, judging.py
    topic's offsets -> where each partition is read from     topics.py, seams.py
    state of each part -> its first checkpoint               handover.py
"""

from headrace.flows.backfill.computing import Step
from headrace.flows.backfill.running import backfill

__all__ = ["Step", "backfill"]
