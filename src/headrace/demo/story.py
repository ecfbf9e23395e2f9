"""The demo from beginning to end: flights, stream, training set, model, figure, lookups, and time passing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from headrace.demo.flights import NEW_YORK, arrivals, departures, questions, read_flights
from headrace.demo.lift import TIMETABLE, Judged, judge, late_among_flagged
from headrace.demo.lookups import clock, side_by_side, then_and_now
from headrace.demo.picture import AIRPORTS, draw
from headrace.demo.project import Project, feature_columns, new_project
from headrace.demo.views import AircraftDelays, AircraftLandings, AirportDelays, CarrierAtAirport
from headrace.flows.recording import Summary

PAUSE = pd.Timestamp("2013-12-30 18:00", tz=NEW_YORK)
"""Where the stream rests while features are asked for. Then the year's last thirty hours come in."""

STORM = pd.Timestamp("2013-09-12", tz=NEW_YORK)
HEADLINE = "The afternoon when thunderstorms reached New York"
FIGURE = "flights.png"

LATELY = ("flights_1h", "delay_mean_1h", "late_share_1h", "delay_mean_1d")


def tell(folder: Path) -> None:
    """Runs the demo in `folder` and says what it does as it goes."""
    began = time.perf_counter()
    console = Console(highlight=False)

    _title(console, 1, "Flights")
    flights = read_flights()
    streams = {"departures": departures(flights), "arrivals": arrivals(flights)}
    console.print(
        f"{len(flights):,} flights of 2013 from EWR, JFK and LGA: {len(streams['departures']):,} departures and "
        f"{len(streams['arrivals']):,} arrivals, "
        "as events in the order in which they became known, in UTC."
    )

    _title(console, 2, "Stream")
    project = new_project(folder)
    project.add_events(1, {name: events[events["at"] <= PAUSE] for name, events in streams.items()})
    _tell_run(console, project, project.replay(fresh=True))

    _title(console, 3, "Training set")
    asked = questions(flights)
    asked = asked[asked["event_timestamp"] <= PAUSE]
    with console.status("as-of join"):
        rows = project.training_set(asked)
    console.print(
        f"{len(rows):,} flights, each with {len(feature_columns(rows))} features as of its scheduled departure: what "
        "serving would have said then, "
        "nothing from after it."
    )

    _title(console, 4, "Model")
    console.print("Will a flight leave more than 15 minutes late? Trained on January to August, judged on the rest.\n")
    with console.status("training, without and with the features"):
        before, after = judge(rows, TIMETABLE), judge(rows, [*TIMETABLE, *feature_columns(rows)])
    console.print(_scores(before, after))

    _title(console, 5, "Figure")
    with console.status("drawing"):
        draw(folder / FIGURE, STORM, HEADLINE, every_minute(project, STORM), on_day(asked, STORM), before, after)
    console.print(f"{STORM:%-d %B %Y} minute by minute, and the lift: [bold]{folder / FIGURE}[/bold]")

    _title(console, 6, "Serving")
    _serve(console, project, streams)

    _title(console, 7, "Your turn")
    console.print(f"  cd {folder}")
    console.print("  headrace views views.py")
    console.print("  headrace get airport_delays origin=LGA --at 2013-09-12T22:00Z")
    console.print("  headrace history airport_delays origin=LGA --to 2013-09-12T22:00Z")
    console.print(f"\n{time.perf_counter() - began:.0f} seconds in all", style="dim")


def every_minute(project: Project, day: pd.Timestamp) -> pd.DataFrame:
    """What serving said of each airport in each minute of a day (New York's): as `draw` takes it."""
    minutes = pd.date_range(day, day + pd.DateOffset(days=1), freq="min", inclusive="left").tz_convert("UTC")
    asked = pd.MultiIndex.from_product([AIRPORTS, minutes], names=["origin", "event_timestamp"]).to_frame(index=False)
    rows = project.training_set(asked, AirportDelays)
    return rows.rename(columns=lambda name: name.removeprefix("airport_delays__"))


def on_day(asked: pd.DataFrame, day: pd.Timestamp) -> pd.DataFrame:
    """The questions of one day (New York's)."""
    return asked[(asked["event_timestamp"] >= day) & (asked["event_timestamp"] < day + pd.DateOffset(days=1))]


def leaves_for_good(departed: pd.DataFrame) -> str:
    """The aircraft that left most often in the day before `PAUSE`, of those that do not leave New York again."""
    after = departed.loc[departed["at"] > PAUSE, "tailnum"]
    day = departed[(departed["at"] > PAUSE - pd.Timedelta(days=1)) & (departed["at"] <= PAUSE)]
    return str(
        day.loc[~day["tailnum"].isin(after), "tailnum"].value_counts(sort=True).sort_index(kind="stable").idxmax()
    )


def _serve(console: Console, project: Project, streams: Mapping[str, pd.DataFrame]) -> None:
    client = project.client()
    gone = leaves_for_good(streams["departures"])
    console.print(f"The lookup client reads the online store. The stream rests at {clock(PAUSE)}.\n")
    console.print(
        side_by_side(client, AirportDelays, [{"origin": code} for code in AIRPORTS], [*LATELY, "worsening"]), ""
    )
    carriers = [
        {"origin": "EWR", "carrier": "UA"},
        {"origin": "JFK", "carrier": "B6"},
        {"origin": "LGA", "carrier": "DL"},
    ]
    console.print(side_by_side(client, CarrierAtAirport, carriers, LATELY), "")
    aircraft = [{"tailnum": tailnum} for tailnum in ("N327AA", "N14228", gone)]
    console.print(side_by_side(client, AircraftDelays, aircraft, ["flights_1d", "delay_mean_1d", "last_delay"]), "")
    console.print(side_by_side(client, AircraftLandings, aircraft, ["landings", "delay_mean", "last_delay"]))

    then = client.get(AircraftDelays, tailnum=gone)
    project.add_events(2, {name: events[events["at"] > PAUSE] for name, events in streams.items()})
    summary = project.replay()
    now = client.get(AircraftDelays, tailnum=gone)
    console.print(
        f"\nThe stream goes on: {summary.taken:,} events until {clock(now.at)}, none of them of "
        f"{gone}, which left New York for good. Asked again, its windows have emptied:\n"
    )
    console.print(then_and_now(then, now))
    client.store.close()


def _title(console: Console, number: int, text: str) -> None:
    console.print(f"\n[bold cyan]{number}  {text}[/]")


def _tell_run(console: Console, project: Project, summary: Summary) -> None:
    views = project.views_file.views
    features = sum(len(view.feature_names()) for view in views)
    entities = sum(summary.entities.values())
    rows = sum(summary.log_rows.values())
    speed = summary.taken / summary.seconds
    console.print(
        f"{summary.taken:,} events through {len(views)} views of {features} features in {summary.seconds:.1f} s "
        f"({speed:,.0f}/s), up to {clock(PAUSE)}. {rows:,} rows in the log, one for each instant at which a value "
        f"changed; {entities:,} entities whose windows are not empty."
    )


def _scores(before: Judged, after: Judged) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 2))
    for name in ("", "columns", "ROC AUC", "average precision", "late among the riskiest tenth"):
        table.add_column(name, justify="right" if name else "left")
    for name, judged in (("timetable alone", before), ("with features", after)):
        table.add_row(
            name,
            str(len(judged.columns)),
            f"{judged.roc_auc:.3f}",
            f"{judged.average_precision:.3f}",
            f"{late_among_flagged(judged):.0%}",
            style="bold" if judged is after else "",
        )
    table.add_row("guessing", "", "0.500", f"{before.late.mean():.3f}", f"{before.late.mean():.0%}", style="dim")
    return table
