"""Which fields the resources of deploy/k8s may have: Kubernetes' own schemas, and what KEDA and Prometheus'
operator say of theirs, as far as we use them.

The latter were read from the custom resources of KEDA 2.16 and of the operator 0.80, whose models took ours without a
field left over.
"""

from __future__ import annotations

from typing import Any

import jsonschema
import kubernetes_validate

VERSIONS = ("1.31.0", "1.37.0")

TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}


def only(*required: str, **fields: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}


def some(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


TRIGGER = only(
    "type",
    "metadata",
    type={"enum": ["kafka", "cpu"]},
    name=TEXT,
    metricType={"enum": ["AverageValue", "Value", "Utilization"]},
    metadata=LABELS,
    authenticationRef=only("name", name=TEXT, kind={"enum": ["TriggerAuthentication", "ClusterTriggerAuthentication"]}),
    useCachedMetrics={"type": "boolean"},
)
OF_TRIGGERS = {
    "kafka": {
        *("bootstrapServers", "bootstrapServersFromEnv", "consumerGroup", "consumerGroupFromEnv"),
        *("topic", "topicFromEnv", "lagThreshold", "activationLagThreshold", "offsetResetPolicy"),
        *("allowIdleConsumers", "scaleToZeroOnInvalidOffset", "excludePersistentLag", "limitToPartitionsWithLag"),
        *("version", "partitionLimitation", "sasl", "tls", "unsafeSsl"),
    },
    "cpu": {"value", "containerName"},
}
SPECS = {
    "keda.sh/v1alpha1 ScaledObject": only(
        "scaleTargetRef",
        "triggers",
        scaleTargetRef=only("name", apiVersion=TEXT, kind=TEXT, name=TEXT, envSourceContainerName=TEXT),
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
        initialCooldownPeriod=COUNT,
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        idleReplicaCount=COUNT,
        advanced=only(
            restoreToOriginalReplicaCount={"type": "boolean"},
            horizontalPodAutoscalerConfig=only(name=TEXT, behavior={"type": "object"}),
        ),
        triggers=some(TRIGGER),
    ),
    "keda.sh/v1alpha1 TriggerAuthentication": only(
        env=some(only("parameter", "name", parameter=TEXT, name=TEXT, containerName=TEXT)),
        secretTargetRef=some(only("parameter", "name", "key", parameter=TEXT, name=TEXT, key=TEXT)),
    ),
    "monitoring.coreos.com/v1 ServiceMonitor": only(
        "selector",
        "endpoints",
        jobLabel=TEXT,
        selector=only(matchLabels=LABELS),
        endpoints=some(
            only(
                port=TEXT,
                path=TEXT,
                scheme={"enum": ["http", "https"]},
                interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
                authorization=only(type=TEXT, credentials=only("key", name=TEXT, key=TEXT)),
                relabelings=some(only(sourceLabels=some(TEXT), targetLabel=TEXT, replacement={"type": "string"})),
            )
        ),
    ),
}


def check(resource: dict[str, Any]) -> None:
    """Raises an error (jsonschema's ValidationError or one derived from it) where a field is unknown or of another
    type."""
    spec = SPECS.get(f"{resource['apiVersion']} {resource['kind']}")
    if spec is None:
        for version in VERSIONS:
            kubernetes_validate.validate(resource, version, strict=True)
        return
    metadata = only("name", name=TEXT, namespace=TEXT, labels=LABELS, annotations=LABELS)
    whole = only("apiVersion", "kind", "metadata", "spec", apiVersion=TEXT, kind=TEXT, metadata=metadata, spec=spec)
    jsonschema.validate(resource, whole)
    for trigger in resource["spec"].get("triggers", ()):
        known = dict.fromkeys(OF_TRIGGERS[trigger["type"]], TEXT)
        jsonschema.validate(trigger["metadata"], only(**known))
    behavior = resource["spec"].get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior")
    if behavior is not None:  # handed on to the autoscaler that KEDA makes
        made = {"maxReplicas": 1, "scaleTargetRef": resource["spec"]["scaleTargetRef"], "behavior": behavior}
        check({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {}, "spec": made})
