"""Flows of steps at work: what headrace.features.streams defines, over batches of events.

rows.py       rows of a batch as event objects, and what functions give as batches again
stateless.py  steps that look at one row: at once, as batches come
stateful.py   steps that remember: rows in event-time order, as the watermark passes
running.py    all steps of a source, their state and their sinks
"""
