"""Values of the past from raw events: what views would have said of given entities at given instants, with no log.

    questions  -> by bucket of entities                      questions.py
    source     -> admission -> the same buckets, of those    running.py, arrivals.py
                  entities alone           |
                        newest row by each instant           asof.py      a bucket at a time, several side by side
                        the same as it was known then        known.py
                                           |
    rows in the order of the questions                       answers.py

The kernels are those of a flow's settled reading, so the values are those of its log.
"""

from headrace.flows.recomputing.answers import Answers
from headrace.flows.recomputing.questions import Questions
from headrace.flows.recomputing.running import Recomputation, recompute

__all__ = ["Answers", "Questions", "Recomputation", "recompute"]
