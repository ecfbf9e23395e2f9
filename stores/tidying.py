"""What follows a commit: files get their names for every reader, and what counts no more goes.

The rule that readers rely on: a file that a commit names is there from before the commit until some minutes after the
last commit that names it. So whoever has read a manifest can read its files, however many commits follow meanwhile.

    a new file      written in the part's folder, named there by the commit; then given its name under view=.../date=
                    by which the next commit names it; minutes later the first name goes
    a merged file   the same, but it gets its name under view=.../date= minutes after the commit, and that is when
                    the files whose rows it holds lose theirs: plain readers see each row once, but for a moment

Every step can be done again: after a crash the next writer of the part does.
"""

from __future__ import annotations

import msgspec

from headrace.stores.manifest import Commit, Dropped, LogFile
from headrace.stores.places import Place


def publish(place: Place, commit: Commit, now_us: int) -> Commit:
    """Give every file that is due its name for every reader; the commit as the next one is to say it."""
    due: list[LogFile] = []

    def named(files: tuple[LogFile, ...]) -> tuple[LogFile, ...]:
        return tuple(_published(file, due) if file.at and file.due_us <= now_us else file for file in files)

    views = {
        name: msgspec.structs.replace(view, files=named(view.files)) if any(file.at for file in view.files) else view
        for name, view in commit.views.items()
    }
    dead_letters = named(commit.dead_letters)
    for file in due:
        _share(place, file)
    place.sync(sorted({file.path.rpartition("/")[0] for file in due}))
    place.delete(path for file in due for path in file.replaces if path != file.path)
    dropped = (*commit.dropped, *(Dropped(file.at, now_us) for file in due))
    return msgspec.structs.replace(commit, views=views, dead_letters=dead_letters, dropped=dropped)


def sweep(place: Place, commit: Commit, named: Commit, now_us: int, keep_us: int) -> Commit:
    """Delete what was dropped `keep_us` ago; `named`: the newest commit, whose files stay."""
    still = named.paths()
    gone = [each for each in commit.dropped if each.since_us + keep_us <= now_us and each.path not in still]
    place.delete(each.path for each in gone)
    left = tuple(each for each in commit.dropped if each not in gone)
    return msgspec.structs.replace(commit, dropped=left)


def _published(file: LogFile, due: list[LogFile]) -> LogFile:
    due.append(file)
    return msgspec.structs.replace(file, at="", replaces=(), due_us=0)


def _share(place: Place, file: LogFile) -> None:
    try:
        place.share(file.at, file.path)
    except FileNotFoundError:
        if not place.exists(file.path):  # else it was done before, and the first name is gone
            raise
