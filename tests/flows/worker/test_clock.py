"""The flow's clock goes on evenly whatever the wall clock does for a moment."""

from headrace.flows.worker.clock import BELIEVED_AFTER_S, SteadyClock

SECOND_NS = 1_000_000_000


class Hands:
    """Two clocks that a test sets."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000 * SECOND_NS
        self.steady = 5 * SECOND_NS

    def go(self, seconds: float, *, wall: float | None = None) -> None:
        self.steady += int(seconds * SECOND_NS)
        self.wall += int((seconds if wall is None else wall) * SECOND_NS)

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.steady)


def test_follows_the_wall() -> None:
    hands = Hands()
    clock = hands.clock()
    first = clock.now_us()
    hands.go(10)
    assert clock.now_us() - first == 10_000_000
    hands.go(1, wall=1.5)  # adjusted a little
    assert clock.now_us() - first == 11_500_000
    assert not clock.jumped


def test_small_steps_back_hold_it_still() -> None:
    hands = Hands()
    clock = hands.clock()
    first = clock.now_us()
    hands.go(0.1, wall=-0.4)
    assert clock.now_us() == first
    hands.go(1.0)
    assert clock.now_us() == hands.wall // 1000


def test_a_jump_for_a_moment_is_not_followed() -> None:
    #   wall   0 ---- 10 | 3600 ---- 3630 | 40 ----
    #   clock  0 ---- 10 |   10 ----   40 | 40 ----
    hands = Hands()
    clock = hands.clock()
    first = clock.now_us()
    hands.go(10)
    clock.now_us()
    hands.wall += 3590 * SECOND_NS
    for _ in range(30):
        hands.go(1)
        assert clock.jumped or clock.now_us()
    assert clock.now_us() - first == 40_000_000
    assert clock.jumped
    hands.wall -= 3590 * SECOND_NS
    hands.go(1)
    assert clock.now_us() - first == 41_000_000
    assert not clock.jumped


def test_a_jump_that_stays_is_believed() -> None:
    for jump in (3600, -3600):
        hands = Hands()
        clock = hands.clock()
        clock.now_us()
        hands.wall += jump * SECOND_NS
        clock.now_us()
        hands.go(BELIEVED_AFTER_S + 1)
        assert clock.now_us() == hands.wall // 1000
        assert not clock.jumped
