"""docker-compose.yml, without Docker: it is what the schema asks, its parts fit each other, and its topology runs here.

Every command of the file (servers, flow, generator, health checks, doctor) is run as it stands there; only addresses,
ports and paths are those of this machine.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from headrace.ops.cells import SharedCells
from headrace.ops.lookup_layout import LookupLayout, Served
from headrace.ops.lookup_metrics import ServerMetrics
from headrace.ops.metrics import Metrics
from tests.servers.install import missing_kafka, missing_redis
from tests.servers.kafka import KafkaServer
from tests.servers.process import ServerProcess, free_port, listening

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
HOME = DEPLOY / "grafana" / "dashboards" / "headrace.json"
BIN = Path(sys.executable).parent
DRIVERS = [f"driver-{number}" for number in range(1, 2001)]


def test_the_file_is_what_the_compose_specification_asks() -> None:
    checked = subprocess.run(
        [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "docker-compose.yml"],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_mounted_and_built_is_there() -> None:
    named = set(COMPOSE["volumes"])
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert source in named or (source.startswith("./") and (ROOT / source).exists()), volume
        assert "image" in service or (ROOT / "Dockerfile").exists()
        assert set(service.get("depends_on", ())) <= set(SERVICES)


def test_every_port_is_open_on_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_prometheus_scrapes_every_worker() -> None:
    words = SERVICES["flow"]["command"]
    workers, port = (int(words[words.index(option) + 1]) for option in ("--workers", "--metrics-port"))
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == [f"flow:{port + number}" for number in range(workers)]
    assert SERVICES["flow"]["environment"]["HEADRACE_METRICS_HOST"] == "0.0.0.0"


def test_prometheus_scrapes_the_lookup_server() -> None:
    lookup = SERVICES["lookup"]
    port = lookup["command"][lookup["command"].index("--port") + 1]
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"][1]
    assert scraped["static_configs"][0]["targets"] == [f"lookup:{port}"]
    jobs = set(re.findall(r'job="([\w-]+)"', (DEPLOY / "prometheus" / "alerts.yml").read_text()))
    assert jobs == {"headrace", scraped["job_name"]}
    assert lookup["ports"] == [f"127.0.0.1:{port}:{port}"]  # without a key, then, and only then
    assert lookup["environment"]["HEADRACE_SERVE_WITHOUT_KEYS"] == "true"


def series() -> set[str]:
    """The names under which Prometheus keeps our metrics."""
    lookups = LookupLayout(Served(("v",), ("s",), (("v", "f"),)))
    cells = SharedCells.made(lookups.layout, 1)
    server = ServerMetrics(lookups, cells)
    cells.row(0)[:] = memoryview(b"\0\0\0\0\0\0\xf0\x3f" * lookups.layout.count).cast("d")  # 1.0: none is left out
    families = [*Metrics("f", "w").registry.collect(), *server.registry.collect()]
    ends = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return {family.name + end for family in families for end in ends.get(family.type, [""])}


def expressions() -> Iterator[tuple[str, str]]:
    for dashboard in DASHBOARDS:
        for panel in json.loads(dashboard.read_text())["panels"]:
            for target in panel.get("targets", ()):
                yield panel["title"], target["expr"]
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]


def test_dashboard_and_alerts_ask_for_metrics_that_exist() -> None:
    known = series()
    asked = {(title, name) for title, text in expressions() for name in re.findall(r"\b(?:headrace|process)_\w+", text)}
    assert {(title, name) for title, name in asked if name not in known} == set()
    # And every metric of ours that moves is shown or rings.
    shown = {name for _, name in asked}
    silent = {"headrace_build_info", "headrace_offset", "headrace_other_events_total", "headrace_events_taken_total"}
    histograms = {
        name.removesuffix(end) for name in known for end in ("_bucket", "_sum", "_count") if name.endswith(end)
    }
    plain = {
        name for name in known if name.startswith("headrace_") and not name.endswith(("_bucket", "_sum", "_count"))
    }
    assert plain - shown - silent == set()
    assert {name for name in histograms if not any(each.startswith(f"{name}_") for each in shown)} == set()


@pytest.mark.parametrize(("title", "expression"), list(expressions()))
def test_expressions_are_whole(title: str, expression: str) -> None:
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing), title


def test_grafana_finds_its_source_and_its_dashboard() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    dashboards = [json.loads(each.read_text()) for each in DASHBOARDS]
    panels = [panel for dashboard in dashboards for panel in dashboard["panels"]]
    assert {panel["datasource"]["uid"] for panel in panels if "datasource" in panel} == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "headrace.yml").read_text())["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/{HOME.name}"
    for dashboard in dashboards:
        ids = [panel["id"] for panel in dashboard["panels"]]
        assert len(ids) == len(set(ids))
    assert len({dashboard["uid"] for dashboard in dashboards}) == len(dashboards) == 2


def test_the_image_is_made_of_what_is_there() -> None:
    text = (ROOT / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"^ARG EXTRAS=(\w+)$", text, re.MULTILINE)) == {"live"} <= set(extras)
    assert SERVICES["demo"]["build"]["args"]["EXTRAS"] in extras
    assert "RUN python -m headrace.flows.warm" in text  # as `make test` does
    assert 'ENTRYPOINT ["headrace"]' in text
    ignored = (ROOT / ".dockerignore").read_text().split()
    for needed in (
        "features",
        "flows",
        "materialize",
        "serving",
        "src",
        "stores",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    ):
        assert f"!{needed}" in ignored
        assert (ROOT / needed).exists()


def test_the_container_runs_the_demo() -> None:
    (words,) = [SERVICES["demo"]["command"]]
    assert words == ["demo"]
    assert "\t@$(BIN)/headrace demo\n" in (ROOT / "Makefile").read_text()


class Topology:
    """The services of the file as processes of this machine.

    Attributes:
        places: what stands in the file -> what it is here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kafka = KafkaServer(folder / "kafka")
        self.redis_port = free_port()
        self.redis = ServerProcess("redis-server", folder / "redis")
        self.metrics = _neighbours(3)
        self.lookup = self.metrics + 2
        self.places = {
            "kafka:19092": self.kafka.bootstrap,
            "redis://redis:6379": f"redis://127.0.0.1:{self.redis_port}",
            "localhost/9092": f"127.0.0.1/{self.kafka.port}",
            "9400": str(self.metrics),
            "9401": str(self.metrics + 1),
            "6566": str(self.lookup),
            "0.0.0.0": "127.0.0.1",
            "/examples": str(ROOT / "examples"),
        }
        self.processes: list[subprocess.Popen[str]] = []

    def here(self, text: str) -> str:
        if text == "/data":
            return str(self.folder / "data")
        for there, here in self.places.items():
            text = text.replace(there, here)
        return text

    def start_kafka(self) -> None:
        """The broker with the settings that the image makes of its variables."""
        given = {name: str(value) for name, value in SERVICES["kafka"]["environment"].items()}
        settings = {name[6:].lower().replace("_", "."): value for name, value in given.items() if name[:6] == "KAFKA_"}
        ports = {"INSIDE": self.kafka.sasl_port, "OUTSIDE": self.kafka.port, "CONTROLLER": self.kafka.controller_port}
        assert [part.partition(":")[0] for part in settings["listeners"].split(",")] == list(ports)
        here = {name: f"{name}://127.0.0.1:{port}" for name, port in ports.items()}
        settings["listeners"] = ",".join(here.values())
        settings["advertised.listeners"] = f"{here['INSIDE']},{here['OUTSIDE']}"
        settings["controller.quorum.voters"] = f"1@127.0.0.1:{ports['CONTROLLER']}"
        settings["log.dirs"] = str(self.kafka.folder / "data")
        self.kafka.settings = settings
        self.kafka.start()

    def start_redis(self) -> None:
        words = SERVICES["redis"]["command"]
        program = shutil.which(words[0])
        assert program is not None
        own = ["--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.redis.folder)]
        self.redis.launch([program, *words[1:], *own], lambda: listening(self.redis_port), 20)

    def start(self, service: str) -> subprocess.Popen[str]:
        described = SERVICES[service]
        words = [*described.get("entrypoint", ["headrace"]), *described["command"]]
        words[0] = str(BIN / words[0])
        environment = {name: self.here(value) for name, value in described["environment"].items()}
        environment["HEADRACE_METRICS_HOST"] = "127.0.0.1"
        with (self.folder / f"{service}.log").open("w") as log:
            process = subprocess.Popen(
                [self.here(word) for word in words],
                cwd=self.here(described.get("working_dir", str(self.folder))),
                env=os.environ | environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.processes.append(process)
        return process

    def log(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()

    def healthy(self, service: str) -> bool:
        """What the health check of a service says."""
        kind, *words = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        if words[0] == "python":
            words[0] = sys.executable
        if words[0] == "redis-cli":
            words[1:1] = ["-p", str(self.redis_port)]
        return subprocess.run([self.here(word) for word in words], capture_output=True).returncode == 0

    def get(self, path: str, worker: int = 0) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics + worker}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                return error.read().decode()
        except OSError:
            return ""

    def looked_up(self) -> set[str]:
        """The statuses of a feature of some drivers, by HTTP."""
        asked = {"features": ["driver_activity:pickups_30m"], "entities": {"driver_id": DRIVERS}}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.lookup}/get-online-features",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return set(json.load(answer)["results"][1]["statuses"])

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()
        self.kafka.kill()
        self.redis.kill()


def _neighbours(count: int) -> int:
    """The first of so many neighbouring ports on which nobody listens, below those that the system gives to
    connections: one of these may be taken before a server comes to it."""
    while True:
        first = random.randrange(20_000, 32_000)
        if not any(listening(first + each) for each in range(count)):
            return first


@pytest.fixture
def topology(tmp_path: Path) -> Iterator[Topology]:
    for trouble in (missing_kafka(), missing_redis()):
        if trouble is not None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(trouble)
    made = Topology(tmp_path)
    yield made
    made.end()


def wait_for(condition: Callable[[], bool], told: Callable[[], str], seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, told()
        time.sleep(0.25)


@pytest.mark.slow
def test_the_topology_runs_as_it_stands_in_the_file(topology: Topology) -> None:
    topology.start_kafka()
    topology.start_redis()
    assert topology.healthy("kafka")
    assert topology.healthy("redis")
    generator = topology.start("generator")
    wait_for(lambda: "Sending" in topology.log("generator"), lambda: topology.log("generator"))
    flow = topology.start("flow")
    log = lambda: topology.log("flow") + topology.get("/readyz") + topology.get("/readyz", 1)  # noqa: E731
    for worker in (0, 1):
        wait_for(lambda worker=worker: '"ok": true' in topology.get("/readyz", worker), log)
    assert topology.healthy("flow")
    written = re.compile(r'^headrace_rows_total{view="driver_activity",where="online"} [1-9]', re.MULTILINE)
    wait_for(lambda: any(written.search(topology.get("/metrics", worker)) for worker in (0, 1)), log)
    lookup = topology.start("lookup")
    wait_for(lambda: topology.healthy("lookup"), lambda: topology.log("lookup"))
    wait_for(lambda: "PRESENT" in topology.looked_up(), lambda: topology.log("lookup"))
    doctor = topology.start("doctor")
    said, _ = doctor.communicate(timeout=60)
    # The flow has the ports and is alive: whatever the doctor thinks about, nothing is to be mended.
    assert doctor.returncode == 0, said
    assert "keyed by driver_id as it says" in said
    for process in (generator, flow, lookup):
        process.send_signal(signal.SIGTERM)
    assert lookup.wait(40) == 0, topology.log("lookup")
    assert generator.wait(30) == 0
    assert flow.wait(60) == 0, topology.log("flow")
    lines = [json.loads(line) for line in topology.log("flow").splitlines()]
    assert [line["event"] for line in lines if line["level"] == "error"] == []
