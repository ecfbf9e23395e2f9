"""Steps of flows as plain list programs: they know whole lists only, so nothing in them can depend on batches.

    stateful, fold, stateful_frame, stateful_batches    a sorted list and a loop; ties by place
    join, lookup                                        the same over both lists, the second input first

Also the functions that the steps are given, which tell every order of rows from every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A row of a list program.

    time: seconds since START. counts: the second it counts from. source, number, sides: for ties; its number among
    those of its stream, and by which sides it came through merges since.
    """

    key: str | None
    n: int
    time: int
    counts: int
    source: int
    number: int
    sides: tuple[int, ...] = ()

    @property
    def place(self) -> tuple[int, int]:
        number = self.number
        for side in self.sides:
            number = number * 2 + side
        return self.source, number


Rows = list[Row]


def mix(state: int | None, row: Any) -> tuple[int, Any]:
    """A state that tells every order of rows from every other."""
    state = (state or 0) * 31 % 1_000_003 + row.n + 1
    if state % 5 == 0:
        return state, None
    made = {"key": "ab"[state % 2], "n": state % 50}
    return state, [made, {"key": row.key, "n": state % 43}] if state % 3 == 0 else made


def changed(row: Any) -> dict[str, Any]:
    if row.n == 13:
        raise ValueError("thirteen")
    return {"key": row.key, "n": (row.n * 7 + 1) % 50}


def several(row: Any) -> list[dict[str, Any]]:
    return [{"key": row.key, "n": row.n + i} for i in range(row.n % 3)]


def pair(left: Any, right: Any) -> dict[str, Any]:
    return {"key": left.key, "n": (left.n * 31 + (7 if right is None else right.n)) % 50}


def folded(state: int, row: Any) -> int:
    return (state * 31 + row.n + 1) % 1_000_003


def numbered(rows: Sequence[Row]) -> Rows:
    return [row._replace(number=i, sides=()) for i, row in enumerate(rows)]


def by_counting(rows: Rows, end: int) -> Rows:
    """Those with a key, up to the end, as steps over settled rows take them."""
    return sorted(
        (row for row in rows if row.key is not None and row.counts <= end),
        key=lambda row: (row.counts, row.time, row.place),
    )


def run_stateful(rows: Rows, end: int) -> Rows:
    states: dict[str, int] = {}
    out: Rows = []
    for row in sorted(by_counting(rows, end), key=lambda row: (row.counts, row.place)):
        states[row.key], given = mix(states.get(row.key), row)  # type: ignore[index]
        for each in [] if given is None else given if isinstance(given, list) else [given]:
            out.append(row._replace(key=each["key"], n=each["n"]))
    return numbered(out)


def run_fold(rows: Rows, width: int, hop: int, end: int) -> tuple[Rows, int]:
    """The windows' rows, and how many rows came when all their windows had closed."""
    windows: dict[tuple[int, str], list[Row]] = {}
    late = 0
    for row in by_counting(rows, end):
        ends = [b for b in range(0, 400, hop) if b - width < row.time <= b and b >= row.counts]
        late += not ends
        for b in ends:
            windows.setdefault((b, str(row.key)), []).append(row)
    out: Rows = []
    for b in sorted({b for b, _ in windows if b <= end}):
        for (closes, key), held in windows.items():
            if closes == b:
                state = 0
                for row in held:
                    state = folded(state, row)
                newest = max(held, key=lambda row: (row.time, row.place))
                out.append(Row(key, state % 50, b, b, newest.source, 0))
    return numbered(out), late


def both_sides(left: Rows, right: Rows, end: int) -> list[tuple[Row, int]]:
    sides = [(row, side) for side, rows in ((0, left), (1, right)) for row in by_counting(rows, end)]
    return sorted(sides, key=lambda each: (each[0].counts, each[0].time, -each[1], each[0].place))


def run_join(left: Rows, right: Rows, within: int, unmatched: bool, end: int) -> Rows:
    events = both_sides(left, right, end)
    found: list[tuple[tuple[int, int, int, int], Row]] = []
    matched: set[int] = set()
    leaves = [max(row.time + within, row.counts) for row, _ in events]
    for i, (row, side) in enumerate(events):
        for j, (other, its) in enumerate(events[:i]):
            if its == side or other.key != row.key or abs(other.time - row.time) > within or leaves[j] < row.counts:
                continue
            matched |= {i, j}
            one, two = (row, other) if side == 0 else (other, row)
            at = max(row.time, other.time)
            made = Row(one.key, pair(one, two)["n"], at, max(at, row.counts), row.source, 0)
            found.append(((row.counts, 0, i, j), made))
    for i, (row, side) in enumerate(events):
        if unmatched and side == 0 and i not in matched and leaves[i] <= end:
            made = Row(row.key, pair(row, None)["n"], leaves[i], leaves[i], row.source, 0)
            found.append(((leaves[i], 1, i, 0), made))
    return numbered([row for _, row in sorted(found, key=lambda each: each[0])])


def run_lookup(left: Rows, right: Rows, end: int) -> Rows:
    table: dict[str | None, Row] = {}
    out: Rows = []
    for row, side in both_sides(left, right, end):
        if side == 0:
            out.append(row._replace(n=pair(row, table.get(row.key))["n"]))
        elif row.key not in table or row.time >= table[row.key].time:
            table[row.key] = row
    return numbered(out)


def framed(frame: dict[str, Any]) -> dict[str, Any]:
    """A row of the frame's last one, moved on in time."""
    last, at = int(frame["n"][-1]), frame["at"][-1].astype("M8[us]").item().replace(tzinfo=UTC)
    made = 0
    for each in frame["n"].tolist():
        made = (made * 31 + each + 1) % 1_000_003
    return {"key": str(frame["key"][-1]), "n": made % 50, "at": at + timedelta(seconds=last % 4)}


def run_frames(rows: Rows, over: int, end: int) -> Rows:
    events = by_counting(rows, end)
    out: Rows = []
    for i, row in enumerate(events):
        its = [e for e in events[: i + 1] if e.key == row.key and e.counts > row.counts - over]
        made = 0
        for each in its:
            made = (made * 31 + each.n + 1) % 1_000_003
        at = row.time + row.n % 4
        out.append(row._replace(n=made % 50, time=at, counts=max(at, row.counts)))
    return numbered(out)


def spanned(state: Any, rows: Any) -> tuple[Any, Any]:
    """Sums so far of each key, which tell how many rows of it came before in the span."""
    totals = rows.key.map(state.total) + rows.groupby("key").n.cumsum()
    state["total"] += rows.groupby("key").n.sum()
    return state, rows.assign(n=(totals + len(rows)) % 50)[["key", "n"]]


def run_spans(rows: Rows, every: int, end: int) -> Rows:
    totals: dict[str | None, int] = {}
    spans: dict[int, Rows] = {}
    for row in by_counting(rows, end):
        spans.setdefault(min(-(-row.counts // every) * every, end), []).append(row)
    out: Rows = []
    for closes, its in spans.items():
        for row in its:
            totals[row.key] = totals.get(row.key, 0) + row.n
            out.append(row._replace(n=(totals[row.key] + len(its)) % 50, counts=closes))
    return numbered(out)


def run_sessions(rows: Rows, gap: int, end: int) -> tuple[Rows, int]:
    """The sessions' rows, and how many rows came when theirs had closed."""
    late = 0
    out: list[tuple[tuple[int, tuple[int, int]], Row]] = []
    taken = by_counting(rows, end)
    for key in sorted({str(row.key) for row in taken}):
        held: Rows = []
        for row in [*(row for row in taken if row.key == key), None]:
            closes = max((each.time for each in held), default=0) + gap
            if held and (closes <= end if row is None else closes <= row.counts):
                state = 0
                for each in held:
                    state = folded(state, each)
                newest = max(held, key=lambda each: (each.time, each.place))
                out.append(((closes, newest.place), Row(key, state % 50, closes, closes, newest.source, 0)))
                held = []
            if row is None:
                break
            first = min((each.time for each in held), default=None)
            if row.time + gap <= row.counts if first is None else row.time <= first - gap:
                late += 1
            else:
                held.append(row)
    return numbered([row for _, row in sorted(out, key=lambda each: each[0])]), late
