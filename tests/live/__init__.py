"""The proof on real servers: generated streams through Kafka, flows as real processes, judged by the naive oracle.

streams.py     messages from a seed: out of order, late, repeated, broken
poison.py      messages that can't be events, one of each kind
expected.py    what the oracle says of them: rows, dead letters
definitions.py descriptions as a file of feature views that `headrace run` can read
worker.py      one worker as a process; flow.py: all of a flow, started, killed, stopped
outcome.py     everything a reader can see after a run, compared with what was expected
watching.py    what is looked at all the time while things break: online rows, memory
"""
