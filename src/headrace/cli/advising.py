"""`headrace advise`: the delays of each source as a plot beside what each choice of lateness would do."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace.cli.loading import ViewsFile
from headrace.cli.show import print_json
from headrace.features.errors import DefinitionError, did_you_mean
from headrace.features.kafka_source import KafkaSource
from headrace.features.sources import Source
from headrace.features.time import format_duration, format_instant
from headrace.flows.delays import Advice, delays_of
from headrace.flows.read import BATCH_SIZE, batches
from headrace.flows.runner import sources_read

if TYPE_CHECKING:
    from headrace.flows.batch import EventBatch

WIDTH = 14
"""Characters of the longest bar of the plot."""


def advise_and_show(
    file: ViewsFile,
    names: Sequence[str],
    *,
    overrides: Mapping[str, Any],
    target: float,
    also: Sequence[int],
    rows: int,
    as_json: bool,
) -> None:
    """Measures the sources of a file, all or those named, and prints what is advised.

    Raises:
        HeadraceError: no such source, or one that cannot be read.
    """
    sources = {source.name: source for source in sources_read(file.views)}
    for name in names:
        if name not in sources:
            raise DefinitionError(
                f"{file.path.name} has no source '{name}'{did_you_mean(name, sources)} "
                f"Its sources are: {', '.join(sources)}."
            )
    chosen = [source for name, source in sources.items() if not names or name in names]
    found = [_advice(source, overrides, target, also, rows) for source in chosen]
    if as_json:
        print_json([as_data(each) for each in found])
        return
    console = Console(soft_wrap=True, highlight=False)
    for each in found:
        _show(console, each)


def _advice(source: Source, overrides: Mapping[str, Any], target: float, also: Sequence[int], rows: int) -> Advice:
    if isinstance(source, KafkaSource):
        from headrace.flows.kafka.sampling import newest_batches

        events = newest_batches(source, overrides, rows=rows)
        return delays_of(source, events, live_clock_us=time.time_ns() // 1_000, also=also).advice(target)
    return delays_of(source, _first(source, rows), also=also).advice(target)


def _first(source: Source, rows: int) -> Iterator[tuple[EventBatch, int]]:
    size = min(rows, BATCH_SIZE)
    for part in batches(source, size):
        beyond = part.progress.offset - rows
        if beyond > 0:  # the batch goes over the end: its rows have their numbers as offsets
            dead = sum(letter.offset < rows for letter in part.dead)
            yield part.batch.take(part.batch.offset < rows), dead
        else:
            yield part.batch, len(part.dead)
        if beyond >= 0:
            return


def as_data(advice: Advice) -> dict[str, Any]:
    """What is advised, as JSON has it: durations as text, instants in ISO 8601."""
    data = asdict(advice)
    for name in ("first_us", "last_us"):
        value = data.pop(name)
        data[name.removesuffix("_us")] = None if value is None else format_instant(value)
    for name in ("current_us", "longest_us", "recommended_us"):
        value = data.pop(name)
        data[name.removesuffix("_us")] = None if value is None else format_duration(value)
    data["choices"] = [
        {
            "lateness": format_duration(each.lateness_us),
            "late": each.late,
            "share": each.share,
            "log_settles_after": format_duration(each.lateness_us),
            "held": each.held,
        }
        for each in advice.choices
    ]
    return data


def _show(console: Console, advice: Advice) -> None:
    console.print(Text(f"{advice.source}", style="bold"), f"lateness {format_duration(advice.current_us)}")
    if advice.recommended_us is None:
        console.print("  No events to judge by.")
        return
    assert advice.first_us is not None
    assert advice.last_us is not None
    console.print(
        f"  {advice.events:,} events of {advice.partitions} partition(s), {format_instant(advice.first_us)} to "
        f"{format_instant(advice.last_us)}; {advice.in_order / advice.events:.1%} in order, the longest delay is "
        f"{format_duration(advice.longest_us)}"
    )
    apart = {"unreadable": advice.broken, "too far ahead": advice.ahead, "repeated": advice.repeated}
    told = ", ".join(f"{count:,} {what}" for what, count in apart.items() if count)
    if told:
        console.print(f"  Not judged: {told}")
    console.print(_table(advice))
    least = advice.choice(advice.recommended_us)
    console.print(
        f'  Recommended: lateness="{format_duration(least.lateness_us)}" sends {_share(least.share)} of the events to '
        f"dead letter (target {_share(advice.target)}); the log settles {format_duration(least.lateness_us)} after the "
        "newest event.\n"
    )


def _table(advice: Advice) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for title in ("lateness", "late", "share", "waiting"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("delays", no_wrap=True, min_width=WIDTH)
    table.add_column("", no_wrap=True)
    before = advice.events
    for each in advice.choices:
        here, before = before - each.late, each.late
        notes = [
            what
            for what, limit in (("now", advice.current_us), ("recommended", advice.recommended_us))
            if limit == each.lateness_us
        ]
        if not (here or notes or not each.lateness_us):
            continue
        bar = "█" * max(int(here > 0), round(WIDTH * here / advice.events))
        cells = (format_duration(each.lateness_us), f"{each.late:,}", _share(each.share), f"{each.held:,}")
        table.add_row(*cells, bar, f"<- {' and '.join(notes)}" if notes else "")
    return table


def _share(share: float) -> str:
    return "0 %" if share == 0 else f"{100 * share:.3g} %"
