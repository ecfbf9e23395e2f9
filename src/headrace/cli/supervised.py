"""`headrace run --workers N`: a supervisor, and on a terminal a table of its workers that keeps itself up to date."""

from __future__ import annotations

import io
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from headrace.cli.flowing import Request, command_of
from headrace.cli.show import print_json, show_figures
from headrace.ops.errors import DONE
from headrace.ops.logs import set_up_logs
from headrace.ops.supervising import Policy, Supervisor, Worker

STYLES = {"running": "green", "starting": "yellow", "waiting": "red", "stopping": "yellow", "ended": "dim"}
RATE_OVER_S = 2.0


def supervise(request: Request) -> int:
    """Runs the workers to their end; returns the exit code."""
    config, settings = request.config, request.settings
    names = [f"{settings.worker}-{number}" for number in range(config.flow.workers)]
    on_terminal = sys.stderr.isatty() and not request.quiet and config.log.format != "json"
    port = config.metrics.port

    def command(number: int) -> Sequence[str]:
        its_port = None if port is None else port + number if port else 0
        log_format = "text" if on_terminal else config.log.format
        return command_of(request, names[number], its_port, log_format)

    policy = Policy(restarts=config.flow.restarts, ends=request.until_end)
    with _shown(settings.name, on_terminal) as (show, output, stream):
        set_up_logs("text" if on_terminal else config.log.format, config.log.level, worker="supervisor", stream=stream)
        supervisor = Supervisor(names, command, policy, show=show, output=output)
        code = supervisor.run()
    _print_total(request, supervisor.workers, code)
    return code


Show = Callable[[Sequence[Worker]], None]


@contextmanager
def _shown(flow: str, on_terminal: bool) -> Iterator[tuple[Show | None, Callable[[bytes], None] | None, Any]]:
    """How to show workers, what to do with the lines they print, and where our own lines go."""
    if not on_terminal:
        yield None, None, sys.stderr
        return
    console = Console(stderr=True)
    rates = Rates()
    with Live(console=console, refresh_per_second=4, transient=True) as live:

        def show(workers: Sequence[Worker]) -> None:
            live.update(workers_table(flow, workers, rates))

        above = _Above(console)
        yield show, lambda lines: above.write_bytes(lines), above


class _Above(io.TextIOBase):
    """Prints whole lines above the table."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._console.print(Text.from_ansi(line), soft_wrap=True, highlight=False)
        return len(text)

    def write_bytes(self, lines: bytes) -> None:
        self.write(lines.decode(errors="replace"))


class Rates:
    """Events per second of each worker over the last two seconds, from its counts."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: dict[str, list[tuple[float, int]]] = {}

    def of(self, worker: Worker) -> float | None:
        """None until there are two counts of the process that runs now."""
        events = worker.status.get("events")
        if events is None:
            self._seen.pop(worker.name, None)
            return None
        now = self._now()
        seen = self._seen.setdefault(worker.name, [])
        if seen and events < seen[-1][1]:
            seen.clear()
        seen.append((now, events))
        while len(seen) > 2 and seen[1][0] < now - RATE_OVER_S:
            seen.pop(0)
        (since, then), (until, count) = seen[0], seen[-1]
        return (count - then) / (until - since) if until - since > 0.2 else None


def workers_table(flow: str, workers: Sequence[Worker], rates: Rates) -> Table:
    """A line for each worker: what it has, how far behind it is and how fast it goes."""
    table = Table(title=f"flow {flow}", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for name in ("worker", "pid", "state"):
        table.add_column(name)
    for name in ("parts", "lag", "events", "events/s", "fresh p99", "dead", "restarts"):
        table.add_column(name, justify="right")
    table.add_column("trouble", style="red")
    for worker in workers:
        status = worker.status
        state = "ready" if status.get("ready") and worker.state == "running" else worker.state
        fresh = status.get("fresh_s")
        table.add_row(
            worker.name,
            "" if worker.process is None else str(worker.process.pid),
            Text(state, style=STYLES.get(worker.state, "")),
            *(_figure(status.get(name)) for name in ("parts", "lag", "events")),
            _figure(rates.of(worker)),
            "" if fresh is None else f"{fresh * 1000:,.0f} ms" if fresh < 10 else f"{fresh:,.0f} s",
            _figure(status.get("dead")),
            str(max(0, worker.starts - 1)),
            status.get("trouble") or "",
        )
    return table


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def total(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The summaries of several workers as one: counts are added up, seconds are those of the longest."""
    added: dict[str, Any] = {}
    for result in results:
        for name, value in result.items():
            if isinstance(value, Mapping):
                added[name] = dict(Counter(added.get(name, {})) + Counter(value))
            elif isinstance(value, bool):
                added[name] = added.get(name, False) or value
            elif isinstance(value, int | float):
                added[name] = max(added.get(name, 0), value) if name == "seconds" else added.get(name, 0) + value
            else:
                added[name] = value
    return added


def _print_total(request: Request, workers: Sequence[Worker], code: int) -> None:
    results = [worker.result for worker in workers if worker.result is not None]
    added = total(results)
    if request.as_json:
        print_json(added)
    elif added:
        lines = {
            "workers": str(len(workers)),
            "events read": f"{sum(added['read'].values()):,}",
            "taken": f"{added['taken']:,}",
            **{f"dead: {reason}": f"{count:,}" for reason, count in sorted(added["dead"].items())},
            **{name: f"{rows:,} online rows" for name, rows in sorted(added["online_rows"].items())},
        }
        ended = "Stopped; the next run goes on from here" if added.get("stopped") else "Done"
        show_figures(ended if code in (DONE, 130) else "Stopped by an error; the next run goes on from here", lines)
