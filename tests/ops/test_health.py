"""Alive while the main loop turns; ready while tasks are assigned, caught up, and what they need works."""

import pytest

from headrace.ops.health import Health


class Now:
    """A clock that is set."""

    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def health(now: Now) -> Health:
    return Health(60.0, 100, now=now)


def test_a_worker_is_alive_while_its_main_loop_turns(health: Health, now: Now) -> None:
    assert health.is_alive().yes
    now.s += 61
    assert health.is_alive().because == ("The main loop has not turned for 61 s.",)
    assert not health.is_ready().yes
    health.alive()
    assert health.is_alive().yes


def test_it_is_ready_when_its_tasks_are_assigned_and_caught_up(health: Health) -> None:
    assert health.is_ready().because == ("No task is assigned yet, or one is still restoring.",)
    health.assigned("rides-0000", "rides", 0)
    health.ready(True)
    assert health.is_ready().yes
    health.position("rides-0000", offset=1, lag=101, watermark_us=None)
    assert health.is_ready().because == ("1 task(s) are more than 100 messages behind, rides-0000 by 101.",)
    health.position("rides-0000", offset=2, lag=None, watermark_us=None)  # not known is no news
    assert not health.is_ready().yes
    health.position("rides-0000", offset=3, lag=100, watermark_us=None)
    assert health.is_ready().yes
    health.position("rides-0000", offset=3, lag=1_000, watermark_us=None)
    health.revoked("rides-0000")
    assert health.is_ready().yes
    health.ready(False)
    assert not health.is_ready().yes


def test_it_is_not_ready_while_what_it_needs_fails(health: Health) -> None:
    health.ready(True)
    health.trouble("online store", "connection refused")
    health.trouble("kafka", "no broker")
    assert health.is_ready().because == ("kafka fails: no broker", "online store fails: connection refused")
    health.recovered("kafka")
    health.recovered("online store")
    assert health.is_ready().yes
