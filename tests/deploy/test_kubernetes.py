"""deploy/k8s, without a cluster: what Kustomize makes of it is what the schemas ask, and what our code has and does."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from confluent_kafka import Consumer

from headrace.cli.loading import load
from headrace.flows.kafka.settings import consumer_config
from headrace.flows.worker.settings import FlowSettings
from headrace.flows.worker.stages import stages_of
from headrace.ops.configuration import ALIASES, PREFIX, configure
from headrace.ops.errors import ConfigurationError
from headrace.ops.settings import Configuration
from tests.deploy.kustomize import Resource, containers, named, pod, render
from tests.deploy.schemas import check

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "k8s" / "overlays"
OVERLAYS = {name: render(FOLDER / name) for name in ("rides", "production")}
PRODUCTION = OVERLAYS["production"]
WORKLOADS = [
    pytest.param(resources, resource, id=f"{name}-{resource['metadata']['name']}")
    for name, resources in OVERLAYS.items()
    for resource in resources
    if pod(resource)
]
EVENTS_S = 50_000
"""That a worker shall do before another one comes."""
SECRETS = {
    "api-keys": "a-key-of-sixteen-signs",
    "kafka-password": "kafka-secret",
    "redis-password": "redis/secret",
    "prometheus-key": "",
}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_is_what_its_schema_asks(overlay: str) -> None:
    for resource in OVERLAYS[overlay]:
        check(resource)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all objects in a resource that have fields, not labels."""
    names = ("labels", "matchLabels", "annotations", "limits", "requests", "data", "nodeSelector")
    if isinstance(value, dict) and not set(path) & set(names):
        yield path
    for key, below in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(below, (*path, key))


@pytest.mark.parametrize("resource", PRODUCTION, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_no_field_is_misspelt_anywhere(resource: Resource) -> None:
    labels = ("spec", "selector") if resource["kind"] == "Service" else None
    for path in places(resource):
        if path == labels:
            continue
        spoilt = copy.deepcopy(resource)
        at = spoilt
        for key in path:
            at = at[key]
        at["replicaz"] = "2"
        with pytest.raises(jsonschema.ValidationError):
            check(spoilt)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_makes_the_same(overlay: str) -> None:
    programs = (["kubectl", "kustomize"], ["kustomize", "build"])
    program = next((words for words in programs if shutil.which(words[0])), None)
    if program is None:
        pytest.skip("neither kubectl nor kustomize is here; install one of them to hold the rendering against it")
    made = subprocess.run([*program, FOLDER / overlay], capture_output=True, text=True, check=True).stdout
    without_hashes = re.sub(r"\b(headrace-(?:views|settings))-[a-z0-9]{10}\b", r"\1", made)
    assert without_hashes != made
    key = lambda each: (each["kind"], each["metadata"]["name"])  # noqa: E731
    assert sorted(yaml.safe_load_all(without_hashes), key=key) == sorted(OVERLAYS[overlay], key=key)


def environment(resources: list[Resource], container: Resource) -> dict[str, str]:
    """What a container finds in its environment."""
    found: dict[str, str] = {}
    for each in container.get("envFrom", ()):
        found |= named(resources, "ConfigMap", each["configMapRef"]["name"])["data"]
    for each in container.get("env", ()):
        found[each["name"]] = each["value"] if "value" in each else SECRETS[each["valueFrom"]["secretKeyRef"]["key"]]
    return found


def main_container(workload: Resource) -> Resource:
    (container,) = pod(workload)["containers"]
    return dict(container)


def configuration(resources: list[Resource], workload: Resource) -> Configuration:
    return configure(None, environment=environment(resources, main_container(workload)))


def is_setting(name: str) -> bool:
    if name in ALIASES or name.startswith(f"{PREFIX}KAFKA_"):
        return True
    try:
        return configure(None, environment={name: "a"}) != Configuration()
    except ConfigurationError as error:
        return "has no key" not in str(error)


@pytest.mark.parametrize(("resources", "workload"), WORKLOADS)
def test_every_variable_is_a_setting(resources: list[Resource], workload: Resource) -> None:
    names = environment(resources, main_container(workload))
    ours = [name for name in names if name.startswith(PREFIX)]
    assert ours
    assert [name for name in ours if not is_setting(name)] == []
    assert not is_setting("HEADRACE_SERVE_HOSTS")
    assert not is_setting("HEADRACE_SERVER_HOST")
    # The others stand in settings, or are Numba's.
    others = set(names) - set(ours) - {"NUMBA_CACHE_DIR"}
    assert all(any(f"${{{other}}}" in value for value in names.values()) for other in others)


@pytest.mark.parametrize(("resources", "workload"), WORKLOADS)
def test_settings_are_those_of_pods(resources: list[Resource], workload: Resource) -> None:
    told = configuration(resources, workload)
    container = main_container(workload)
    (port,) = container["ports"]
    command, views = container["args"]
    assert Path(views).name in named(resources, "ConfigMap", "headrace-views")["data"]
    assert told.flow.name == "rides"  # the views file is called views.py in every pod
    assert told.flow.workers == told.serve.workers == 1
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert probes == [{"path": path, "port": port["name"]} for path in ("/healthz", "/healthz", "/readyz")]
    grace = pod(workload)["terminationGracePeriodSeconds"]
    if command == "run":
        assert (told.metrics.host, told.metrics.port) == ("0.0.0.0", port["containerPort"])
        assert told.online.url is not None
        assert "://" in told.offline.data  # a pod has no disk that another one could take over
        assert grace > told.metrics.stalled_after.value
    else:
        assert command == "serve"
        assert (told.serve.host, told.serve.port) == ("0.0.0.0", port["containerPort"])
        assert told.serve.api_keys == SECRETS["api-keys"]
        assert told.serve.drain is not None
        assert grace > told.serve.drain.value + told.serve.stop_within.value
        ready = container["readinessProbe"]
        assert told.serve.drain.value > ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]


def test_passwords_reach_their_places() -> None:
    for name, kind in (("headrace-flow", "StatefulSet"), ("headrace-server", "Deployment")):
        told = configuration(PRODUCTION, named(PRODUCTION, kind, name))
        assert told.online.url == "rediss://headrace:redis%2Fsecret@redis.example.com:6379/0"
        assert told.kafka["sasl.password"] == "kafka-secret"
        source = views_source()
        Consumer(consumer_config(source, "group", told.kafka)).close()  # librdkafka knows every name and value
    in_the_open = "".join((FOLDER / name / "settings.env").read_text() for name in OVERLAYS)
    assert not re.search(r"(?i)password=|key=|:[^/$@\s]+@", in_the_open)


def views_source() -> Any:
    (view,) = load(FOLDER / "rides" / "rides.py").views
    return view.source


def triggers(kind: str) -> list[Mapping[str, Any]]:
    scaled = named(PRODUCTION, "ScaledObject", "headrace-flow")
    return [each for each in scaled["spec"]["triggers"] if each["type"] == kind]


def test_the_autoscaler_watches_the_groups_of_the_flow() -> None:
    told = configuration(PRODUCTION, named(PRODUCTION, "StatefulSet", "headrace-flow"))
    settings = FlowSettings(str(told.flow.name), told.offline.data, group=told.flow.group)
    source = views_source()
    stages = stages_of(settings.name, source, load(FOLDER / "rides" / "rides.py").views, partitions=4)
    groups = {(f"{settings.consumer_group}.{source.name}", topic) for topic in source.topics}
    groups |= {(f"{settings.consumer_group}.{route.name}", route.topic) for route in stages.routes}
    kafka = [each["metadata"] for each in triggers("kafka")]
    assert {(each["consumerGroup"], each["topic"]) for each in kafka} == groups
    container = main_container(named(PRODUCTION, "StatefulSet", "headrace-flow"))
    names = environment(PRODUCTION, container)
    mechanisms = {"SCRAM-SHA-512": "scram_sha512", "SCRAM-SHA-256": "scram_sha256", "PLAIN": "plaintext"}
    for each in kafka:
        assert each["bootstrapServersFromEnv"] in names
        assert each["offsetResetPolicy"] == source.start
        # Offsets are committed with checkpoints: a worker that keeps up must not look as if it did not.
        assert int(each["lagThreshold"]) >= 2 * EVENTS_S * told.flow.checkpoint_every.value
        assert each["sasl"] == mechanisms[told.kafka["sasl.mechanism"]]
        assert (each["tls"] == "enable") == told.kafka["security.protocol"].endswith("SSL")
    # What the scaler shows the brokers is what workers show them.
    (auth,) = [each for each in PRODUCTION if each["kind"] == "TriggerAuthentication"]
    assert {each["authenticationRef"]["name"] for each in triggers("kafka")} == {auth["metadata"]["name"]}
    assert auth["spec"]["env"] == [{"parameter": "username", "name": "HEADRACE_KAFKA_SASL_USERNAME"}]
    (password,) = auth["spec"]["secretTargetRef"]
    (given,) = [each for each in container["env"] if each["name"] == "HEADRACE_KAFKA_SASL_PASSWORD"]
    assert given["valueFrom"]["secretKeyRef"] == {"name": password["name"], "key": password["key"]}
    assert all(isinstance(value, str) for each in kafka for value in each.values())  # KEDA's metadata is text


def test_no_two_decide_how_many_pods_there_are() -> None:
    for resources in OVERLAYS.values():
        scaled = [each["spec"] for each in resources if each["kind"] in ("ScaledObject", "HorizontalPodAutoscaler")]
        targets = [(each["scaleTargetRef"]["kind"], each["scaleTargetRef"]["name"]) for each in scaled]
        assert len(targets) == len(set(targets))
        for kind, name in targets:
            target = named(resources, kind, name)
            assert "replicas" not in target["spec"]
            assert main_container(target)["resources"]["requests"]["cpu"]  # of which utilization is a share
    (scaled,) = [each["spec"] for each in PRODUCTION if each["kind"] == "ScaledObject"]
    assert scaled["minReplicaCount"] >= 1
    assert triggers("cpu")


def referred(value: Any) -> Iterator[tuple[str, str]]:
    """(what, name) of ConfigMaps, Secrets' keys and volumes that are named below a value."""
    if isinstance(value, dict):
        for field, below in value.items():
            if field in ("configMapRef", "configMap"):
                yield "ConfigMap", below["name"]
            elif field in ("secretKeyRef", "credentials"):
                yield "key", f"{below['name']}/{below['key']}"
            elif field == "secretTargetRef":
                yield from (("key", f"{each['name']}/{each['key']}") for each in below)
            else:
                yield from referred(below)
    elif isinstance(value, list):
        for each in value:
            yield from referred(each)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_named_is_there(overlay: str) -> None:
    resources = OVERLAYS[overlay]
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in resources if pod(each)]
    services = [each for each in resources if each["kind"] == "Service"]
    for what, name in {each for resource in resources for each in referred(resource)}:
        if what == "ConfigMap":
            named(resources, "ConfigMap", name)
        else:
            secret, _, key = name.partition("/")
            assert secret == "headrace"
            assert f"--from-literal={key}=" in page
    for resource in resources:
        kind, spec = resource["kind"], resource.get("spec", {})
        if kind == "Service":
            assert labels.count(spec["selector"]) == 1
        elif kind in ("PodDisruptionBudget", "Deployment", "StatefulSet"):
            assert labels.count(spec["selector"]["matchLabels"]) == 1
        elif kind == "ServiceMonitor":
            its = spec["selector"]["matchLabels"]
            (service,) = [each for each in services if its.items() <= each["metadata"]["labels"].items()]
            assert {each["port"] for each in spec["endpoints"]} <= {each["name"] for each in service["spec"]["ports"]}
        if pod(resource):
            volumes = {each["name"] for each in pod(resource)["volumes"]}
            assert {each["name"] for run in containers(resource) for each in run["volumeMounts"]} == volumes
            named(resources, "ServiceAccount", pod(resource)["serviceAccountName"])
    named(resources, "Service", named(resources, "StatefulSet", "headrace-flow")["spec"]["serviceName"])


@pytest.mark.parametrize(("resources", "workload"), WORKLOADS)
def test_pods_may_do_little(resources: list[Resource], workload: Resource) -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    uid = int(re.search(r"useradd .*--uid (\d+)", dockerfile).group(1))  # type: ignore[union-attr]
    described = pod(workload)
    assert described["securityContext"]["runAsNonRoot"] is True
    assert described["securityContext"]["runAsUser"] == uid
    assert described["automountServiceAccountToken"] is False
    assert described["enableServiceLinks"] is False  # HEADRACE_FLOW_PORT=tcp://... would be a setting
    writable = {each["name"] for each in described["volumes"] if "emptyDir" in each}
    for container in containers(workload):
        allowed = container["securityContext"]
        assert allowed["readOnlyRootFilesystem"] is True
        assert allowed["allowPrivilegeEscalation"] is False
        assert allowed["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys()
        mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
        assert all(each["name"] in writable or each.get("readOnly") for each in mounts.values())
        cache = environment(resources, container).get("NUMBA_CACHE_DIR")
        assert cache is None or mounts[cache]["name"] in writable
        assert container["image"] == "registry.example.com/headrace:1"


def test_kernels_of_the_image_are_copied_to_where_numba_looks() -> None:
    (copying,) = pod(named(PRODUCTION, "StatefulSet", "headrace-flow"))["initContainers"]
    dockerfile = (ROOT / "Dockerfile").read_text()
    built = re.search(r"NUMBA_CACHE_DIR=(\S+)", dockerfile)
    assert built is not None
    container = main_container(named(PRODUCTION, "StatefulSet", "headrace-flow"))
    there = environment(PRODUCTION, container)["NUMBA_CACHE_DIR"]
    assert environment(PRODUCTION, copying) == {"NUMBA_CACHE_DIR": there}
    shell, option, words = copying["command"]
    assert (shell, option) == ("sh", "-c")
    copied, _, compiled = words.partition(" && ")
    assert copied == f"cp -r {built.group(1)}/. {there}/"
    assert f"RUN {compiled}\n" in dockerfile


def test_prometheus_knows_the_jobs_of_the_alarms() -> None:
    alerts = (ROOT / "deploy" / "prometheus" / "alerts.yml").read_text()
    monitors = [each for each in PRODUCTION if each["kind"] == "ServiceMonitor"]
    jobs = {
        relabeling["replacement"]
        for each in monitors
        for endpoint in each["spec"]["endpoints"]
        for relabeling in endpoint["relabelings"]
        if relabeling["targetLabel"] == "job"
    }
    assert jobs == set(re.findall(r'job="([\w-]+)"', alerts))
