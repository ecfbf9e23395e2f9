"""The folder that the demo works in: events as files, the views file, and what a replay of it leaves.

    departures/part-1.parquet   up to the evening of 30 December      departures/part-2.parquet   the rest of the year
    arrivals/...                the same                              views.py                    the features
    headrace-data/              online store and log

It is a project as `headrace init` makes one: `headrace run`, `get` and `history` work in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from headrace.cli.loading import ViewsFile, load
from headrace.cli.project import DATA
from headrace.cli.replaying import replay
from headrace.demo import views
from headrace.features.views import FeatureView
from headrace.flows.recording import LOG, ONLINE, Summary
from headrace.materialize import training_set
from headrace.serving import Client
from headrace.stores.embedded import EmbeddedStore
from headrace.stores.offline import OfflineLog


@dataclass(frozen=True)
class Project:
    """A folder with the demo's views file, `views_file`, in it."""

    folder: Path
    views_file: ViewsFile

    def add_events(self, part: int, streams: Mapping[str, pd.DataFrame]) -> None:
        """Writes the next events of each stream beside those that are there; files are read in the order of names."""
        for name, events in streams.items():
            events.to_parquet(self.folder / name / f"part-{part}.parquet", index=False)

    def replay(self, *, fresh: bool = False, quiet: bool = False) -> Summary:
        """Streams what has not been streamed yet through the views, with a progress bar unless `quiet`."""
        views = self.views_file.views
        return replay(self.views_file, views, self.data, batch_size=10_000, live=False, fresh=fresh, quiet=quiet)

    def training_set(self, asked: pd.DataFrame, view: type[FeatureView] | None = None) -> pd.DataFrame:
        """`asked` with the features of all views, or of one, as of each row's event_timestamp: `<view>__<feature>`."""
        chosen = self.views_file.views if view is None else [view]
        rows: pd.DataFrame = training_set(asked, chosen, log=OfflineLog(self.data / LOG), prefix=True).to_pandas()
        return rows

    def client(self) -> Client:
        """A lookup client, as a model server has one; it reads while others write."""
        return Client(EmbeddedStore(self.data / ONLINE, read_only=True), self.views_file.views)

    @property
    def data(self) -> Path:
        return self.folder / DATA


def new_project(folder: Path) -> Project:
    """A project without events in `folder`; what an earlier demo has left there is dropped."""
    for name in ("departures", "arrivals"):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
    shutil.copyfile(views.__file__, folder / "views.py")
    return Project(folder, load(folder / "views.py"))


def feature_columns(rows: pd.DataFrame) -> list[str]:
    """The columns of a training set that are features."""
    return [name for name in rows.columns if "__" in name]
