"""A process that materializes a Feast repository whenever it is told to, in a child that may be killed.

python -m tests.materialize.feast.killed_run FOLDER        line in -> process id of a child, then how it ended
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Feast's dependencies deprecate is not ours to mend
    from feast import FeatureStore
    from tests.materialize.feast.engine_repo import at

    import headrace.materialize.feast  # noqa: F401 - known before the fork


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    print("ready", flush=True)
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            FeatureStore(str(folder)).materialize(at(-3600), at(3600))
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
