"""`headrace checkpoints`: where the parts of a run stand, and what one of them holds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from headrace.cli.places import LOG, part_of
from headrace.cli.show import print_json, show_figures
from headrace.features.errors import HeadraceError, did_you_mean
from headrace.features.time import format_instant
from headrace.stores.checkpoints import read_checkpoint
from headrace.stores.commits import read_manifest
from headrace.stores.manifest import Commit, ViewLog

ONLY = "-"
"""How the part of a run with one writer is called here; its own name is empty."""


def checkpoints(data: str | Path, part: str | None, *, as_json: bool) -> None:
    """Show the checkpoints of all parts, or what is in that of one, whose state is read and checked.

    Raises:
        HeadraceError: there is no log, or no such part. CorruptError: the state of the part is damaged.
    """
    root = part_of(data, LOG)
    commits = read_manifest(root).parts
    if not commits:
        raise HeadraceError(f"{data} holds no checkpoints. `headrace run FILE --data {data}` makes some.")
    now_us = time.time_ns() // 1000
    if part is None:
        rows = [_as_data(commit, now_us) for commit in commits.values()]
        if as_json:
            print_json({"parts": rows})
        else:
            _show_all(rows)
        return
    commit = commits.get("" if part == ONLY else part)
    if commit is None:
        names = [name or ONLY for name in commits]
        raise HeadraceError(
            f"{data} has no part '{part}'{did_you_mean(part, names)} `headrace checkpoints --data {data}` lists them."
        )
    read_checkpoint(root, commit.part)
    found = {**_as_data(commit, now_us), **_inside(commit)}
    if as_json:
        print_json(found)
    else:
        _show_one(found)


def _as_data(commit: Commit, now_us: int) -> dict[str, Any]:
    return {
        "part": commit.part or ONLY,
        "checkpoint": commit.sequence,
        "epoch": commit.epoch,
        "at": format_instant(commit.at_us) if commit.at_us else None,
        "age_s": round(max(0, now_us - commit.at_us) / 1_000_000, 1) if commit.at_us else None,
        "state_bytes": sum(file.size for chain in commit.snapshots.values() for file in chain),
        "offsets": {source: {str(at): offset for at, offset in by.items()} for source, by in commit.offsets.items()},
        "clock": None if commit.clock is None else format_instant(commit.clock.us),
        "settled": {name: _instant(view.settled_us) for name, view in commit.views.items()},
        "dead_letters": sum(file.rows for file in commit.dead_letters),
    }


def _inside(commit: Commit) -> dict[str, Any]:
    return {
        "state": {name: [file.size for file in chain] for name, chain in commit.snapshots.items()},
        "views": {name: _view(view) for name, view in commit.views.items()},
        "dropped_files": len(commit.dropped),
    }


def _view(view: ViewLog) -> dict[str, Any]:
    return {
        "settled": _instant(view.settled_us),
        "rows": sum(file.rows for file in view.files),
        "files": len(view.files),
        "waiting_files": sum(bool(file.at) for file in view.files),
        "provisional_rows": sum(tail.rows for tail in view.tails),
        "first": _instant(min((file.first_us for file in view.files), default=None)),
        "last": _instant(max((file.last_us for file in view.files), default=None)),
        "definitions": len(view.layouts),
    }


def _instant(us: int | None) -> str | None:
    return None if us is None else format_instant(us)


def _show_all(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Checkpoints", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("part", "checkpoint", "epoch", "age", "state", "offsets", "settled up to"):
        table.add_column(name, justify="right" if name in ("checkpoint", "epoch", "age", "state") else "left")
    for row in rows:
        table.add_row(
            row["part"],
            f"{row['checkpoint']:,}",
            str(row["epoch"]),
            _age(row["age_s"]),
            _size(row["state_bytes"]),
            _offsets(row["offsets"]),
            min((at for at in row["settled"].values() if at is not None), default="") if row["settled"] else "",
        )
    Console().print(table)


def _show_one(found: Mapping[str, Any]) -> None:
    lines = {
        "checkpoint": f"{found['checkpoint']:,}, epoch {found['epoch']}",
        "made": f"{found['at']}, {_age(found['age_s'])} ago" if found["at"] else "by version 0.1",
        "clock": found["clock"] or "",
        "offsets": _offsets(found["offsets"]),
        "dead letters": f"{found['dead_letters']:,}",
        "dropped files": f"{found['dropped_files']:,} that stay some minutes for readers",
    }
    for name, sizes in found["state"].items():
        changes = f", of it {len(sizes) - 1} changes" if len(sizes) > 1 else ""
        lines[f"state: {name}"] = f"{_size(sum(sizes))}{changes}; whole"
    for name, view in found["views"].items():
        settled = f"settled up to {view['settled']}" if view["settled"] else "not settled"
        lines[f"view: {name}"] = (
            f"{view['rows']:,} rows in {view['files']:,} files, {view['provisional_rows']:,} provisional, {settled}"
            + (f", {view['definitions']} definitions" if view["definitions"] > 1 else "")
        )
    show_figures(f"Part {found['part']}", {name: line for name, line in lines.items() if line})


def _offsets(offsets: Mapping[str, Mapping[str, int]]) -> str:
    return ", ".join(f"{source} {at}:{offset}" for source, by in offsets.items() for at, offset in by.items())


def _age(seconds: float | None) -> str:
    """A span in its two largest units.

    >>> _age(4.2), _age(3 * 3600 + 5 * 60 + 7), _age(200_000), _age(None)
    ('4 s', '3 h 5 min', '2 d 7 h', '')
    """
    if seconds is None:
        return ""
    whole = int(seconds)
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60), ("s", whole % 60))
    first = next((at for at, (_, count) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2] if count) or "0 s"


def _size(count: int) -> str:
    """Bytes in a unit that reads well.

    >>> _size(999), _size(12_345), _size(3_400_000_000)
    ('999 B', '12.3 kB', '3.4 GB')
    """
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return ""
