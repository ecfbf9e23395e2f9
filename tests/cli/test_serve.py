"""`headrace serve` as processes: it answers, workers that die are started again, keys and TLS keep others out."""

from __future__ import annotations

import http.client
import json
import logging
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.servers.fixtures import RedisAddress
from typer.testing import CliRunner

from headrace.cli.commands import app

VIEWS = """
from headrace.features import Entity, Event, EventTime, FeatureService, FeatureView, IterableSource

class Ride(Event):
    driver_id: str
    fare: float
    at: EventTime

events = [{"driver_id": str(n % 3), "fare": float(n), "at": f"2026-01-01T00:{n:02d}:00Z"} for n in range(30)]
rides = IterableSource(events, Ride)
driver = Entity("driver", key="driver_id")

class DriverActivity(FeatureView, source=rides, entity=driver):
    rides_1h = Ride.count(last="1h")
    fare_mean = Ride.fare.mean(last="1h")

pricing = FeatureService("pricing", [DriverActivity["fare_mean"]])
"""
ASKED = {"features": ["driver_activity:rides_1h"], "entities": {"driver_id": ["0", "9"]}}
KEY = "a-key-that-nobody-guesses"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with views, and what a run of them has written."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "served_views.py").write_text(VIEWS)
    ran = CliRunner().invoke(
        app, ["run", str(folder / "served_views.py"), "--data", str(folder / "headrace-data"), "--quiet"]
    )
    assert ran.exit_code == 0, ran.output
    return folder


class Server:
    """`headrace serve` in a folder.

    Attributes:
        log: its lines so far.
    """

    def __init__(self, folder: Path, log: Path, *words: str, **environment: str) -> None:
        self._log = log
        self.tls: ssl.SSLContext | None = None
        with log.open("w") as lines:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "headrace", "serve", "served_views.py", "--port", "0", *words],
                cwd=folder,
                stdout=lines,
                stderr=lines,
                env={name: each for name, each in os.environ.items() if name[:9] != "HEADRACE_"} | environment,
            )

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def told(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == event]

    def until(self, condition: Callable[[], Any], seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.02)

    def ready(self, workers: int = 1) -> Server:
        self.until(lambda: len(self.told("the store answers")) >= workers)
        return self

    @property
    def url(self) -> str:
        (line,) = self.told("serving")
        return str(line["url"])

    def get(self, path: str, key: str | None = None) -> tuple[int, str]:
        return self._ask(urllib.request.Request(self.url + path), key)

    def ask(self, asked: Any = ASKED, key: str | None = None, path: str = "/get-online-features") -> tuple[int, Any]:
        body = json.dumps(asked).encode()
        request = urllib.request.Request(self.url + path, body, {"Content-Type": "application/json"})
        status, text = self._ask(request, key)
        return status, json.loads(text)

    def _ask(self, request: urllib.request.Request, key: str | None) -> tuple[int, str]:
        if key is not None:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=30, context=self.tls) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, refused.read().decode()

    def metric(self, name: str) -> dict[str, float]:
        found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return {labels: float(value) for labels, value in found}

    def stopped(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


Start = Callable[..., Server]


@pytest.fixture
def start(made: Path, tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def start(*words: str, **environment: str) -> Server:
        servers.append(Server(made, tmp_path / f"{len(servers)}.log", *words, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait(20)


def test_a_newcomer_asks_what_run_has_written(start: Start) -> None:
    server = start().ready()
    status, answer = server.ask()
    assert status == 200
    assert answer["metadata"]["feature_names"] == ["driver_id", "rides_1h"]
    assert answer["results"][1]["values"] == [10, 0]
    assert answer["results"][1]["statuses"] == ["PRESENT", "NOT_FOUND"]
    assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
    assert json.loads(server.get("/features")[1])["services"][0]["name"] == "pricing"
    server.ask({"feature_service": "pricing", "entities": {"driver_id": ["0"]}})
    assert server.metric("headrace_http_requests_total")['route="/get-online-features",status="2xx"'] == 2
    values = server.metric("headrace_lookup_values_total")
    assert values['feature="rides_1h",view="driver_activity"'] == 2
    assert values['feature="fare_mean",view="driver_activity"'] == 1
    absent = server.metric("headrace_lookup_values_not_present_total")
    assert absent['feature="rides_1h",status="NOT_FOUND",view="driver_activity"'] == 1
    assert server.metric("headrace_lookup_row_age_seconds_count") == {'view="driver_activity"': 2}
    assert server.stopped() == 0


def test_pushes_reach_redis_and_can_be_left_out(start: Start, redis_server: RedisAddress) -> None:
    now = datetime.now(UTC).isoformat()
    row = {"driver_id": ["p"], "rides_1h": [4], "fare_mean": [2.5], "event_timestamp": [now]}
    pushed = {"push_source_name": "driver_activity", "df": row}
    server = start("--online", redis_server.url).ready()
    assert server.ask(pushed, path="/push")[0] == 200
    asked = {**ASKED, "entities": {"driver_id": ["p"]}}
    assert server.ask(asked)[1]["results"][1]["values"] == [4]
    assert server.stopped() == 0
    server = start("--online", redis_server.url, HEADRACE_SERVE_PUSH="false").ready()
    assert server.ask(pushed, path="/push")[0] == 404
    assert server.ask(asked)[0] == 200


def test_what_was_answered_is_logged_and_the_rest_is_written_at_the_end(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "served"
    server = start(HEADRACE_SERVE_FEATURE_LOG=str(log)).ready()
    status, _ = server.ask({"feature_service": "pricing", "entities": {"driver_id": ["0", "1"]}})
    assert status == 200
    assert server.stopped() == 0
    found = pyarrow.dataset.dataset(list(map(str, log.rglob("*.parquet")))).to_table().to_pylist()
    assert {row["keys"]["driver_id"]: row["features"]["fare_mean"] for row in found} == {"0": 13.5, "1": 14.5}


def test_a_worker_that_is_killed_comes_back_and_its_counts_stay(start: Start) -> None:
    server = start("--workers", "2").ready(workers=2)
    pids = {line["started"]: line["pid"] for line in server.told("worker started")}
    assert len({server.ask()[0] for _ in range(20)}) == 1
    before = server.metric("headrace_http_requests_total")['route="/get-online-features",status="2xx"']
    assert before == 20
    os.kill(pids["0"], signal.SIGKILL)
    server.until(lambda: server.told("worker died; it is started again"))
    assert [server.ask()[0] for _ in range(10)] == [200] * 10  # its sibling answers meanwhile
    server.ready(workers=3)
    assert server.metric("headrace_worker_starts_total") == {'worker="0"': 2, 'worker="1"': 1}
    assert server.metric("headrace_http_requests_total")['route="/get-online-features",status="2xx"'] == 30
    # Asked to stop, every worker leaves, and none is started again.
    assert server.stopped(signal.SIGINT) == 130
    assert len(server.told("worker stopped")) == 2


def test_asked_to_stop_the_workers_answer_what_has_come(start: Start) -> None:
    server = start("--workers", "2").ready(workers=2)
    host, port = server.url.removeprefix("http://").split(":")
    connections = [http.client.HTTPConnection(host, int(port), timeout=30) for _ in range(6)]
    body = json.dumps(ASKED)
    for connection in connections:  # heads have come and bodies not: requests that are under way
        connection.putrequest("POST", "/get-online-features")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body[:10].encode())
    server.until(lambda: server.metric("headrace_http_in_flight")[""] == 7)  # this one included
    server.process.send_signal(signal.SIGTERM)
    server.until(lambda: len(server.told("stopping")) == 2)
    for connection in connections:
        connection.send(body[10:].encode())
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
        connection.close()
    assert server.process.wait(60) == 0


def test_workers_do_not_outlive_a_killed_supervisor(start: Start) -> None:
    server = start("--workers", "2").ready(workers=2)
    pids = [line["pid"] for line in server.told("worker started")]
    server.process.kill()
    server.process.wait(20)
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < end
        time.sleep(0.02)
    assert len(server.told("worker stopped")) == 2


def test_views_that_change_meanwhile_are_not_served_beside_the_old(start: Start, made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "changing"
    shutil.copytree(made, folder)
    server = Server(folder, tmp_path / "changing.log", "--workers", "2")
    try:
        server.ready(workers=2)
        views = folder / "served_views.py"
        views.write_text(views.read_text().replace("rides_1h =", "rides_60m ="))
        os.kill(server.told("worker started")[0]["pid"], signal.SIGKILL)
        server.until(lambda: server.told("worker cannot go on"))
        assert "have changed since the server was started" in server.told("worker cannot go on")[0]["error"]
        assert server.ask()[0] == 200
    finally:
        server.process.terminate()
        server.process.wait(60)


def test_who_shows_no_key_gets_nothing_but_the_probes(start: Start, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# of the model servers\n{KEY}-of-a-file\n")
    server = start(HEADRACE_SERVE_API_KEYS=KEY, HEADRACE_SERVE_API_KEYS_FILE=str(tmp_path / "keys")).ready()
    assert [server.ask(key=key)[0] for key in (None, "another-key-of-somebody", KEY, f"{KEY}-of-a-file")] == [
        401,
        401,
        200,
        200,
    ]
    assert server.get("/metrics")[0] == 401
    assert server.get("/metrics", key=KEY)[0] == 200
    assert server.get("/healthz")[0] == server.get("/readyz")[0] == 200
    assert server.stopped() == 0
    assert KEY not in server._log.read_text()
    (refused,) = [line for line in server.told("request") if line["route"] == "/metrics"]
    assert (refused["status"], refused["method"], len(refused["trace"])) == (401, "GET", 32)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of "localhost" that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def test_with_a_certificate_it_speaks_https_only(start: Start, certificate: tuple[Path, Path]) -> None:
    cert, key = map(str, certificate)
    server = start("--tls-cert", cert, "--tls-key", key, "--host", "localhost").ready()
    assert server.url.startswith("https://localhost:")
    server.tls = ssl.create_default_context(cafile=cert)
    assert server.ask()[0] == 200
    plain = http.client.HTTPConnection(server.url.removeprefix("https://"), timeout=30)
    plain.request("GET", "/healthz")
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        plain.getresponse()
    plain.close()
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(server.url + "/healthz", timeout=30)


@pytest.fixture
def logs_as_before() -> Iterator[None]:
    """A command that runs in this process sets logging up as of its own."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, sys.excepthook, threading.excepthook
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level, sys.excepthook, threading.excepthook = before
    structlog.reset_defaults()


def refused(folder: Path, *words: str, **environment: str) -> tuple[int, str]:
    """Exit code and message of a server that does not start."""
    result = CliRunner().invoke(
        app, ["serve", str(folder / "served_views.py"), *words], env={"HEADRACE_DATA": "nowhere", **environment}
    )
    return result.exit_code, " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (["--host", "0.0.0.0", "--port", "0"], {}, "Set HEADRACE_SERVE_API_KEYS, or [serve] without_keys = true"),
        (["--port", "0"], {"HEADRACE_SERVE_API_KEYS": "short"}, "could be guessed"),
        (["--port", "0", "--tls-cert", "cert.pem"], {}, "tls_cert is given without tls_key"),
        (["--port", "0", "--tls-cert", "no.pem", "--tls-key", "no.pem"], {}, "there is no file no.pem"),
        (["--layout", "other"], {}, "option --layout: expected one of feast, packed"),
        (["--host", "no-such-host.invalid"], {}, "is no address of this machine"),
    ],
)
def test_a_wrong_setting_is_told_and_never_mended_by_starting_again(
    logs_as_before: None, made: Path, words: list[str], environment: dict[str, str], says: str
) -> None:
    code, told = refused(made, *words, **environment)
    assert code == 78, told
    assert says in told


def test_without_a_run_it_says_what_to_run(logs_as_before: None, made: Path) -> None:
    code, told = refused(made, "--port", "0")
    assert code == 1
    assert "There is no data folder nowhere" in told
    assert "headrace run served_views.py" in told


def test_starting_it_loads_nothing_that_lookups_do_not_use(made: Path) -> None:
    code = f"""
import sys
from headrace.cli.loading import load
from pathlib import Path
from headrace.cli.commands import app
import headrace.cli.serving, headrace.ops.lookup_worker
from headrace.ops.lookup_layout import LookupLayout, Served
file = load(Path({str(made / "served_views.py")!r}))
LookupLayout(Served.of(file.views, file.services))
heavy = ("numba", "pandas", "duckdb", "pyarrow", "confluent_kafka", "polars", "feast", "scipy", "rich.live")
print([name for name in heavy if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "[]\n", ran.stdout + ran.stderr
