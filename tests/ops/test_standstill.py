"""A loop that stands still ends its process; one that is slow, or was stopped, does not."""

from __future__ import annotations

import subprocess
import sys

from headrace.ops.standstill import Standstill


def test_it_ends_after_as_many_looks_without_a_turn() -> None:
    turns, ended = [0.0], []
    watched = Standstill(lambda: turns[0], 0.5, after_s=2.0, end=lambda: ended.append(True))
    for _ in range(100):  # it has not begun
        watched.look()
    for _ in range(5):
        turns[0] += 1.0
        for _ in range(5):  # four seconds may pass between two looks: only looks count
            watched.look()
    assert ended == []
    watched.look()
    assert ended == [True]


STUCK = """
import threading, time
from headrace.ops.standstill import Standstill

stuck = threading.Event()

def stuck_here():
    stuck.set()
    time.sleep(60)

watched = Standstill(lambda: 1.0, 0.5, after_s=1.0)
def look():
    stuck.wait()
    while True:
        watched.look()
threading.Thread(target=look, daemon=True).start()
stuck_here()
"""


def test_where_it_stands_is_told() -> None:
    ran = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "the loop stands still" in ran.stdout + ran.stderr
    assert "stuck_here" in ran.stderr
