"""`make servers`: sees to it that the servers of the tests are there. Needs nothing but Python; quick when all is done.

Kafka's jars come from Maven Central by `mvn` into `.servers/` of the project; redis-server, Java and Maven from Debian
when they are missing and we are root. What can't be had is named with the command that installs it; with CI=true that
is a failure, otherwise the tests that need it are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = HERE.parents[1] / ".servers"
KAFKA = re.search(r"<kafka>(.+?)</kafka>", (HERE / "pom.xml").read_text())[1]  # type: ignore[index]
JAVA = 17  # the least that Kafka 4 runs on
DEBIAN = {"redis-server": "redis-server", "java": "default-jre-headless", "mvn": "maven"}


def kafka_jars() -> Path | None:
    """The folder of Kafka's jars: KAFKA_LIBS (the libs folder of any Kafka 4) or what was fetched. None: neither."""
    if given := os.environ.get("KAFKA_LIBS"):
        return Path(given)
    fetched = CACHE / f"kafka-{KAFKA}"
    return fetched if fetched.is_dir() else None


def missing_kafka() -> str | None:
    """Why Kafka can't be started here, with the next move; None: it can."""
    if kafka_jars() is None:
        return (
            "Kafka's jars are not here: run `make servers` (needs Maven), or set KAFKA_LIBS to a Kafka 4's libs folder."
        )
    if shutil.which("java") is None:
        return f"Kafka needs Java {JAVA} or newer and there is none: apt-get install {DEBIAN['java']}."
    return None


def missing_redis() -> str | None:
    """Why Redis can't be started here, with the next move; None: it can."""
    if shutil.which("redis-server") is None:
        return "redis-server is not here: run `make servers` as root, or apt-get install redis-server."
    return None


def main() -> int:
    wanted = ["redis-server", "java"] + (["mvn"] if kafka_jars() is None else [])
    lacking = [name for name in wanted if shutil.which(name) is None]
    if lacking and os.geteuid() == 0 and shutil.which("apt-get"):
        _apt([DEBIAN[name] for name in lacking])
    if kafka_jars() is None and shutil.which("mvn"):
        _fetch_kafka()
    troubles = [trouble for trouble in (missing_kafka(), missing_redis()) if trouble]
    for trouble in troubles:
        print(f"make servers: {trouble}", file=sys.stderr)
    return 1 if troubles and os.environ.get("CI") else 0


def _apt(packages: list[str]) -> None:
    # RUNLEVEL=1: Debian starts no service of its own after installing.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    print(f"make servers: apt-get install {' '.join(packages)}", file=sys.stderr)
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *packages]):
        ran = subprocess.run(["apt-get", *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if ran.returncode:
            sys.stderr.buffer.write(ran.stdout)


def _fetch_kafka() -> None:
    """The jars into a folder beside, then renamed: whoever looks sees all of them or none."""
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as made:
        jars = Path(made) / "jars"
        print(f"make servers: fetching Kafka {KAFKA} with Maven", file=sys.stderr)
        command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), f"-DoutputDirectory={jars}"]
        ran = subprocess.run(
            [*command, "dependency:copy-dependencies"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=made
        )
        if ran.returncode or not list(jars.glob("kafka_*.jar")):
            sys.stderr.buffer.write(ran.stdout)
            return
        try:
            jars.rename(CACHE / f"kafka-{KAFKA}")
        except OSError:  # somebody else's run was faster
            if kafka_jars() is None:
                raise


if __name__ == "__main__":
    sys.exit(main())
