"""What a flow is told: the file, over it the environment, over it the command line; and every mistake by its place."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from headrace.ops.configuration import configuration_file, configure, type_of
from headrace.ops.errors import ConfigurationError
from headrace.ops.settings import Configuration, Seconds

EVERYTHING = """
[flow]
name = "rides"
group = "rides-live"
workers = 4
checkpoint_every = "30s"
batch_size = 5000
clock = "stream"
on_change = "start"

[kafka]
bootstrap.servers = "kafka:9092"
"security.protocol" = "SASL_SSL"
sasl.username = "headrace"
sasl.password = "${KAFKA_PASSWORD}"
enable.ssl.certificate.verification = true
fetch.wait.max.ms = 5

[online]
url = "rediss://flow:${REDIS_PASSWORD}@cache:6379/0"
project = "rides"
layout = "packed"

[offline]
data = "s3://features/rides"

[metrics]
host = "0.0.0.0"
port = 9400
stalled_after = 30
ready_lag = 1000

[log]
format = "json"
level = "debug"

[dead_letters]
topic = "rides.dead"
"""
PASSWORDS = {"KAFKA_PASSWORD": "k@fka/pass", "REDIS_PASSWORD": "r:d@s/50%"}


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        (tmp_path / "headrace.toml").write_text(text)
        return tmp_path / "headrace.toml"

    return write


def complaint(file: Path | None, environment: dict[str, str] | None = None, **options: dict[str, object]) -> str:
    with pytest.raises(ConfigurationError) as refused:
        configure(file, environment=environment or {}, options=options)
    return str(refused.value)


def test_nothing_given_is_the_defaults() -> None:
    assert configure(None, environment={}) == Configuration()


def test_every_section_is_read_with_its_types(written) -> None:
    found = configure(written(EVERYTHING), environment=PASSWORDS)
    assert found.flow.checkpoint_every == Seconds(30.0)
    assert (found.flow.name, found.flow.workers, found.flow.clock) == ("rides", 4, "stream")
    assert found.kafka == {
        "bootstrap.servers": "kafka:9092",
        "security.protocol": "SASL_SSL",
        "sasl.username": "headrace",
        "sasl.password": "k@fka/pass",
        "enable.ssl.certificate.verification": "true",
        "fetch.wait.max.ms": "5",
    }
    # Quoted where it becomes part of a URL, so that it may hold any sign.
    assert found.online.url == "rediss://flow:r%3Ad%40s%2F50%25@cache:6379/0"
    assert found.offline.data == "s3://features/rides"
    assert (found.metrics.port, found.metrics.stalled_after) == (9400, Seconds(30.0))
    assert (found.log.format, found.dead_letters.topic) == ("json", "rides.dead")


def test_the_command_line_beats_the_environment_which_beats_the_file(written) -> None:
    file = written('[flow]\nbatch_size = 1\nworkers = 1\nname = "file"\n')
    environment = {"HEADRACE_FLOW_BATCH_SIZE": "2", "HEADRACE_FLOW_WORKERS": "2"}
    found = configure(file, environment=environment, options={"flow": {"workers": 3, "name": None}})
    assert (found.flow.name, found.flow.batch_size, found.flow.workers) == ("file", 2, 3)


def test_variables_name_settings_of_kafka_with_underscores() -> None:
    environment = {
        "HEADRACE_KAFKA_BOOTSTRAP": "short:9092",
        "HEADRACE_KAFKA_SASL_PASSWORD": "holds ${ and }",
        "HEADRACE_KAFKA_SSL_KEY": "-----BEGIN",
        "HEADRACE_DATA": "/data",
    }
    found = configure(None, environment=environment)
    assert found.kafka == {
        "bootstrap.servers": "short:9092",
        "sasl.password": "holds ${ and }",
        "ssl_key": "-----BEGIN",
    }
    assert found.offline.data == "/data"
    both = configure(None, environment={**environment, "HEADRACE_KAFKA_BOOTSTRAP_SERVERS": "full:9092"})
    assert both.kafka["bootstrap.servers"] == "full:9092"


def test_variables_that_kubernetes_sets_for_services_are_not_settings() -> None:
    environment = {
        "HEADRACE_METRICS_SERVICE_HOST": "10.0.0.1",
        "HEADRACE_METRICS_PORT": "tcp://10.0.0.1:9400",
        "HEADRACE_METRICS_PORT_9400_TCP": "tcp://10.0.0.1:9400",
        "HEADRACE_METRICS_PORT_9400_TCP_ADDR": "10.0.0.1",
        "HEADRACE_SERVE_SERVICE_PORT_HTTP": "6566",
        "HEADRACE_SERVE_PORT": "tcp://10.0.0.1:6566",
        "HEADRACE_SERVE_PORT_6566_TCP_PROTO": "tcp",
        "HEADRACE_SERVE_PORT_6566_TCP_PORT": "6566",
        "HEADRACE_DEBUG": "1",
    }
    assert configure(None, environment=environment) == Configuration()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[flw]\nname = 'x'", "there is no section [flw]; did you mean 'flow'?"),
        ("[flw]", "there is no section [flw]; did you mean 'flow'?"),
        ("[flow]\nworker = 2", "[flow] worker: section [flow] has no key 'worker'; did you mean 'workers'?"),
        ("[flow]\nworkers = 'two'", "[flow] workers: expected `int`, got 'two'"),
        ("[flow]\nworkers = 0", "[flow] workers: expected `int` >= 1, got 0"),
        ("[flow]\nclock = 'wal'", "[flow] clock: expected one of wall, stream, got 'wal'"),
        ("[flow]\ncheckpoint_every = 'soon'", "[flow] checkpoint_every: "),
        ("[flow]\ncheckpoint_every = -1", "expected a length of time above zero"),
        ("[flow]\ncheckpoint_every = true", "[flow] checkpoint_every: "),
        ("[metrics]\nport = 70000", "[metrics] port: expected `int` <= 65535, got 70000"),
        ("[metrics]\nport = '9400'", "[metrics] port: expected `int | null`, got '9400'"),
        ("[kafka]\nbootstrap.servers = ['a', 'b']", "[kafka] bootstrap.servers: expected text, a number"),
        ("name = 'x'", "'name' stands outside of a section"),
        ("[flow", "is no TOML"),
    ],
)
def test_a_mistake_is_told_by_file_and_key(written, text: str, message: str) -> None:
    said = complaint(written(text))
    assert "headrace.toml" in said
    assert message in said


def test_mistakes_name_the_variable_or_the_option() -> None:
    assert complaint(None, {"HEADRACE_FLOW_WORKERS": "two"}).startswith("variable HEADRACE_FLOW_WORKERS: expected")
    assert "no key 'wrkers'; did you mean 'workers'?" in complaint(None, {"HEADRACE_FLOW_WRKERS": "2"})
    assert complaint(None, flow={"checkpoint_every": "x"}).startswith("option --checkpoint-every: ")


def test_a_missing_file_is_told() -> None:
    assert complaint(Path("nowhere.toml")).startswith("There is no configuration file nowhere.toml")


def test_the_file_is_found_beside_the_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    views = tmp_path / "there" / "views.py"
    assert configuration_file(views, None) is None
    (tmp_path / "here" / "headrace.toml").touch()
    assert configuration_file(views, None) == Path("headrace.toml")
    (tmp_path / "there" / "headrace.toml").touch()
    assert configuration_file(views, None) == tmp_path / "there" / "headrace.toml"
    assert configuration_file(views, Path("other.toml")) == Path("other.toml")


def test_the_server_is_told_by_its_own_section(written) -> None:
    file = written('[serve]\nport = 0\nworkers = 2\ncache = "2s"\ndrain = 5\n')
    environment = {"HEADRACE_SERVE_API_KEYS": "one two", "HEADRACE_SERVE_WITHOUT_KEYS": "true"}
    found = configure(file, environment=environment, options={"serve": {"port": 8080, "host": None}}).serve
    assert (found.port, found.host, found.workers, found.without_keys) == (8080, "127.0.0.1", 2, True)
    assert (found.cache, found.drain, found.timeout) == (Seconds(2.0), Seconds(5.0), Seconds(5.0))
    assert found.api_keys == "one two"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[serve]\napi_keys = "in-the-open"\n', "${API_KEYS}"),
        ('[serve]\ncache = "soon"\n', "[serve] cache"),
        ('[serve]\nstatuses = "nice"\n', "expected one of honest, feast"),
        ("[serve]\nfeature_log_sample = 1.5\n", "[serve] feature_log_sample"),
        ("[serve]\nprot = 1\n", "did you mean 'port'?"),
    ],
)
def test_mistakes_of_the_servers_section_are_named(written, text: str, says: str) -> None:
    told = complaint(written(text))
    assert says in told
    assert "in-the-open" not in told


def test_the_page_of_configuration_lists_every_key_and_no_other() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    listed = set(re.findall(r"^\| (\w+) \| `(\w+)` \|", page, re.MULTILINE))
    sections = [each.name for each in fields(Configuration) if each.name != "kafka"]
    assert listed == {(section, each.name) for section in sections for each in fields(type_of(section))}


def test_the_example_of_the_page_is_read(written) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    example = re.search(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert example is not None
    found = configure(written(example[1]), environment={"KAFKA_PASSWORD": "k", "REDIS_PASSWORD": "r"})
    assert (found.flow.name, found.kafka["sasl.mechanism"]) == ("rides", "SCRAM-SHA-512")
