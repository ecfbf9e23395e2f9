"""Reading a source for a backfill in its own order: each event is judged, and put into the bucket of its part."""

import time
from typing import NamedTuple

from headrace.flows.backfill.computing import Progress, Step
from headrace.flows.backfill.site import Judge, Outlets, Site, lettered
from headrace.flows.read import batches


class Reached(NamedTuple):
    """How far a source was read: rows, and the files begun."""

    offset: int
    files: tuple[str, ...]


def read_in_order(site: Site, batch_size: int, progress: Progress) -> tuple[Judge, Reached]:
    """Every event of the source; the judge stands at its end then."""
    judge = site.judge(time.time_ns() // 1000)
    reached = Reached(0, ())
    with Outlets(site) as outlets:
        for piece in batches(site.read, batch_size):
            for part, events, letters in judge.take(piece.batch):
                outlets.put(part, events, lettered(letters))
            broken = piece.dead if judge.end is None else [each for each in piece.dead if each.offset < judge.end]
            judge.counts.dead.update(letter.reason for letter in broken)
            outlets.put(site.first, None, lettered(broken))
            reached = Reached(piece.progress.offset, piece.progress.files)
            progress(Step("read", site.name, piece.progress.done, piece.progress.total))
            if judge.end is not None:
                reached = reached._replace(offset=judge.end)
                break
    return judge, reached
