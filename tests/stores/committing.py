"""A process that writes a part of a log until it is killed or fenced: `python -m tests.stores.committing ROOT PART`.

Goes on from its checkpoint. Each commit adds the next rows and is then told on stdout. Ends with 3 when it is fenced.
"""

from __future__ import annotations

import sys

from tests.stores.logs import visits

from headrace.stores.checkpoints import SnapshotPart, read_checkpoint
from headrace.stores.errors import FencedError
from headrace.stores.offline import OfflineLog
from headrace.stores.testing import Visits

FENCED = 3


def main(root: str, part: str) -> int:
    log = OfflineLog(root, part, keep_s=0.2)
    epoch = log.claim(steal=True)
    checkpoint = read_checkpoint(root, part)
    at = 0 if checkpoint is None else checkpoint.offsets["s"][0]
    print("claimed", epoch, at, flush=True)
    try:
        while True:
            log.append(Visits, visits(at, user=part))
            log.append(Visits, visits(at + 1, user=part))
            log.tail(Visits, visits(10**12 + at, user=part))
            at += 2
            full = at % 16 == 2
            log.commit(snapshots={"flow": SnapshotPart(b"%d;" % at, delta=not full)}, offsets={"s": {0: at}})
            print("committed", at, flush=True)
    except FencedError:
        return FENCED


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
