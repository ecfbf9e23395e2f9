"""Events per second of the peers that run W1 from Kafka, each in an environment of its own (`make bench-peers`)."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.messages import fill
from benchmarks.servers import Servers
from benchmarks.workload import W1

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / ".peers"
LIMIT_S = 600
FIRST = {"bytewax": 30_000, "quix streams": 5_000, "flink sql": 200_000}
"""So many of W1's first events each of them reads, as fast as it is; the fewer, the less its windows have filled."""


def installed() -> dict[str, Callable[[Servers], float]]:
    """The peers that are there, by name."""
    found: dict[str, Callable[[Servers], float]] = {}
    if (PEERS / "bytewax" / "bin" / "python").exists():
        found["bytewax"] = bytewax
    if (PEERS / "quix" / "bin" / "python").exists():
        found["quix streams"] = quix
    if (PEERS / "flink" / "jars").exists() and shutil.which("javac"):
        found["flink sql"] = flink
    return found


def topics(at: Servers, data: W1, names: object) -> None:
    """The topics that peers read."""
    for name, count in FIRST.items():
        if name in names:  # type: ignore[operator]
            fill(at.bootstrap, topic_of(name), data.first(count))
    if "flink sql" in names:  # type: ignore[operator]
        fill(at.bootstrap, "w1-warm-up", data.first(20_000))


def topic_of(name: str) -> str:
    return f"w1-for-{name.replace(' ', '-')}"


def bytewax(at: Servers) -> float:
    command = [PEERS / "bytewax" / "bin" / "python", HERE / "bytewax_w1.py", at.bootstrap, topic_of("bytewax")]
    told = said("bytewax", command)
    return _rate("bytewax", told["events"], told["seconds"])


def quix(at: Servers) -> float:
    name = "quix streams"
    command = [PEERS / "quix" / "bin" / "python", HERE / "quix_w1.py", at.bootstrap, topic_of(name), str(FIRST[name])]
    told = said(name, command)
    if told["rows"] < FIRST[name]:
        raise SystemExit(f"flow: {name} gave {told['rows']} rows for {FIRST[name]} events")
    return _rate(name, told["events"], told["seconds"])


def flink(at: Servers) -> float:
    command = ["java", "-Xmx4g", "-cp", f"{PEERS}/flink/jars/*", HERE / "flink" / "W1.java"]
    told = said("flink sql", [*command, at.bootstrap, topic_of("flink sql"), "w1-warm-up"])
    if told["rows"] != 20_000:
        raise SystemExit(f"flow: flink sql gave {told['rows']} rows for 20,000 events")
    return _rate("flink sql", FIRST["flink sql"], told["seconds"])


def said(name: str, command: list[object]) -> dict[str, float]:
    """What a peer printed last. Raises SystemExit with its own words if it failed or took too long."""
    try:
        ran = subprocess.run([str(each) for each in command], capture_output=True, text=True, timeout=LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"flow: {name} did not end within {LIMIT_S} s:\n{str(error.stderr)[-3000:]}") from None
    if ran.returncode:
        raise SystemExit(f"flow: {name} failed:\n{ran.stderr[-3000:]}")
    told: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return told


def _rate(name: str, events: float, seconds: float) -> float:
    if events != FIRST[name]:
        raise SystemExit(f"flow: {name} read {events} events of {FIRST[name]}")
    return events / seconds
