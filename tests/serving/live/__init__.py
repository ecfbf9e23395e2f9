"""`headrace serve` as a process, under load and under faults: every answer is right or says that it failed.

views.py defines features whose every value says whose it is, rows.py writes and judges them, talking.py asks over HTTP,
load.py asks all the time on many connections, process.py starts the server and watches its memory, soak.py does it for
minutes.
"""
