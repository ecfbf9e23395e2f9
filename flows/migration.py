"""Records of a view's state under another definition of the view.

A feature is found again by what it computes (identity.py), so most of a migration is leaving out. What is left to do:

- tiles that only a removed window looked at are dropped, or their entity would never leave memory;
- every entity that holds something states its values anew at the first instant that has not settled: features that are
  new, have another name or another default show in the log from there, and the next change of each entity is worked
  out again on the way.
"""

import numpy as np
import numpy.typing as npt

from headrace.flows.columns import UNSEEN
from headrace.flows.identity import GroupName, Names
from headrace.flows.lanes import NEVER
from headrace.flows.plan import Plan
from headrace.flows.records import Records
from headrace.flows.state import (
    G_DELAY,
    G_HOP,
    G_KIND,
    G_LONGEST,
    NONE,
    TILES,
    UNBOUNDED,
    W_EXIT,
    W_MODE,
)

Ints = npt.NDArray[np.int64]


def migrate(records: Records, plan: Plan, names: Names, settled: int) -> Records:
    """The records as `plan` wants them; those of features that it does not have are left out.

    settled: the last instant that has settled, microseconds.
    """
    kept = {group.name: group for group in names.groups if group.name in records.lists}
    for group in kept.values():
        if plan.tables.groups[group.number, G_KIND] == TILES:
            _prune(records, plan, group)
    holds = np.zeros(records.n, dtype=np.bool_)
    for name in kept:
        for each in (name, f"{name}/pending"):
            if each in records.lists:
                holds |= records.lists[each].counts > 0
    holds &= records.fixed["asof"] != NEVER
    records.fixed["next"] = np.where(holds, settled + 1, records.fixed["next"])
    records.fixed["written"] = np.where(holds, NEVER, records.fixed["written"])
    for name, column in records.fixed.items():
        if name.startswith("known/"):
            records.fixed[name] = np.where(holds, np.uint8(UNSEEN), column)
    for name in [name for name in records.lists if name.startswith("given/")]:
        del records.lists[name]
    return records


def _prune(records: Records, plan: Plan, group: GroupName) -> None:
    """Drop the tiles that have left all windows there are now."""
    t = plan.tables
    row = t.groups[group.number]
    longest = row[G_LONGEST]
    if t.windows[longest, W_MODE] == UNBOUNDED:
        return
    entries = records.lists[group.name]
    now = records.fixed["asof"] - np.where(records.fixed["asof"] == NEVER, 0, row[G_DELAY])
    leaves = (entries.columns["place"] + 1) * row[G_HOP] + t.windows[longest, W_EXIT]
    stays = leaves > np.repeat(now, entries.counts)
    if stays.all():
        return
    left = records.lists[group.name] = entries.only(stays)
    dropped = entries.counts - left.counts
    for name, _ in group.windows:
        run = records.fixed[f"run/{group.name}/{name}"]
        records.fixed[f"run/{group.name}/{name}"] = np.where(run == NONE, NONE, run - dropped[:, None])
