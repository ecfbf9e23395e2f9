"""A live flow on Spark: the same tasks as a worker's, in Spark's executors.

    query.py   the driver: which messages are read in a turn, one Spark job for each, what is known afterwards
    levels.py  what a Spark task computes: the tasks whose rows it has, one after the other
    host.py    the tasks of a Python process of an executor: opened from their checkpoints, kept while they stay
    plan.py    which tasks a flow has, and which of them come after which
    rows.py    what goes from task to task through Spark's shuffle

docs/decisions/0022-spark.md says why it is made so.
"""
