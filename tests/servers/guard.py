"""Keeps a server as its child, and ends it when the process that it serves ends, however that ends.

    python guard.py WATCHED_PID PID_FILE COMMAND...

The pid of the server goes to PID_FILE. The guard exits as the server does; SIGTERM to the guard kills the server.
Without a guard a pytest that is killed leaves brokers behind; a signal on the parent's death alone does not do, as the
xdist worker that started a shared server may end before the others.
"""

import os
import select
import signal
import subprocess
import sys
import time


def main(watched: int, pid_file: str, command: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # Ready to read when that process has ended, also while nobody has waited for it.
        ended = os.pidfd_open(watched) if hasattr(os, "pidfd_open") else None
    except ProcessLookupError:
        return 1
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: server.kill())
    with open(f"{pid_file}.new", "w") as file:
        file.write(str(server.pid))
    os.replace(f"{pid_file}.new", pid_file)
    while server.poll() is None:
        if _gone(watched, ended):
            server.kill()
    return server.wait()


def _gone(watched: int, ended: int | None) -> bool:
    """Whether the watched process has ended; waits up to 50 ms for it."""
    if ended is not None:
        return bool(select.select([ended], [], [], 0.05)[0])
    time.sleep(0.05)
    try:
        os.kill(watched, 0)
    except ProcessLookupError:
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
