"""The Helm chart: what Helm itself renders from it has the right shape, fits together, and is accepted by our tools."""

import json
from pathlib import Path
from typing import Any

import connection_exporter
import pytest
import yaml
from connection_exporter.kinds import load_text
from support.helm import CHART, ChartError, helm, objects, one

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING: dict[str, Any] = {
    "shards": 3,
    "secrets": {"database": "s3cret"},
    "env": [{"name": "DATABASE_URL", "value": "postgresql://db/app"}],
    "envFrom": [{"secretRef": {"name": "more"}}],
    "extraArgs": ["--log.level=debug"],
    "extraVolumes": [{"name": "web", "secret": {"secretName": "web"}}],
    "extraVolumeMounts": [{"name": "web", "mountPath": "/etc/web"}],
    "persistence": {"enabled": True, "storageClass": "fast"},
    "podLabels": {"team": "a"},
    "podAnnotations": {"note": "b"},
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 1}],
    "imagePullSecrets": [{"name": "registry"}],
    "priorityClassName": "high",
    "serviceMonitor": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}},
    "prometheusRule": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}},
    "dashboards": {"enabled": True},
    "networkPolicy": {"enabled": True},
    "podDisruptionBudget": {"enabled": True},
}
KINDS = {
    "ConfigMap": "v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "Secret": "v1",
    "Service": "v1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "StatefulSet": "apps/v1",
}


@pytest.fixture(scope="module")
def everything() -> list[dict[str, Any]]:
    return objects(EVERYTHING)


@pytest.fixture(scope="module")
def plain() -> list[dict[str, Any]]:
    return objects({})


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["plain", "everything"])
def test_helm_lint_finds_nothing(values: dict[str, Any]) -> None:
    """As strict as it can be."""
    found = helm(values)["lint"]
    assert (found["messages"], found["errors"]) == ([], [])


def test_what_nobody_asked_for_is_not_made(
    plain: list[dict[str, Any]], everything: list[dict[str, Any]]
) -> None:
    """Without the Prometheus operator, the chart installs: its three kinds are off."""
    assert sorted(made["kind"] for made in plain) == ["ConfigMap", "Service", "StatefulSet"]
    assert {made["kind"]: made["apiVersion"] for made in everything} == KINDS


def test_each_object_has_a_name_a_namespace_and_the_usual_labels(everything: list[dict[str, Any]]) -> None:
    for made in everything:
        metadata = made["metadata"]
        assert metadata["name"].startswith("rel-connection-exporter")
        assert len(metadata["name"]) <= 63
        assert metadata["namespace"] == "obs"
        assert metadata["labels"]["app.kubernetes.io/name"] == "connection-exporter"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "rel"
        assert metadata["labels"]["app.kubernetes.io/version"] == connection_exporter.__version__


def test_the_chart_has_the_version_of_the_program() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == connection_exporter.__version__


def test_the_pod_is_hardened_and_runs_as_any_user(everything: list[dict[str, Any]]) -> None:
    """What the restricted standard of pod security asks for, and no fixed user."""
    pod = one(everything, "StatefulSet")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    (secrets,) = (volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets")
    assert secrets["defaultMode"] == 0o444
    assert "memory" in container["resources"]["limits"]


def test_the_pod_is_probed_whatever_the_state_of_the_services(everything: list[dict[str, Any]]) -> None:
    (container,) = one(everything, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    paths = {
        name: container[name]["httpGet"]["path"]
        for name in ("livenessProbe", "readinessProbe", "startupProbe")
    }
    assert paths == {"livenessProbe": "/-/healthy", "readinessProbe": "/-/ready", "startupProbe": "/-/ready"}


def test_the_config_is_mounted_as_a_folder_so_that_a_change_arrives(everything: list[dict[str, Any]]) -> None:
    """And no checksum restarts the pod: the sessions of what did not change are kept."""
    template = one(everything, "StatefulSet")["spec"]["template"]
    (container,) = template["spec"]["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["config"] == {"name": "config", "mountPath": "/etc/connection-exporter", "readOnly": True}
    assert all("subPath" not in mount for mount in mounts.values())
    assert template["metadata"]["annotations"] == {"note": "b"}
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    assert mounts.keys() - volumes == {"storage"}  # from the claim
    storage = one(everything, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert storage[0]["metadata"]["name"] == "storage"
    assert "--storage.path=/var/lib/connection-exporter" in container["args"]


@pytest.mark.parametrize(
    ("config", "services"),
    [
        ({}, ["kubernetes_api"]),
        ({"services": {"cache": {"kind": "redis", "canary": "off", "retries": 2}}}, ["cache"]),
        ("services:\n  cache: {kind: redis, canary: off} # a comment\n", ["cache"]),
    ],
)
def test_the_exporter_accepts_the_config_of_the_chart(config: object, services: list[str]) -> None:
    """From a mapping, from a text, and by default; nothing is merged with services of the user."""
    made = one(objects({"config": config}), "ConfigMap")
    loaded = load_text(made["data"]["connection-exporter.yml"])
    assert list(loaded.services) == services
    if "cache" in services:
        assert loaded.services["cache"].canary is None


def test_shards_share_the_services(everything: list[dict[str, Any]]) -> None:
    """As many pods as the variable says."""
    spec = one(everything, "StatefulSet")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert (spec["replicas"], variables["CONNECTION_EXPORTER_SHARD"]) == (3, "3")
    assert variables["DATABASE_URL"] == "postgresql://db/app"


def test_secrets_are_files_and_may_exist_already() -> None:
    made = objects({"secrets": {"database": "s3cret"}})
    assert one(made, "Secret")["data"] == {"database": "czNjcmV0"}
    for values in ({"existingSecret": "mine"}, {"existingSecret": "mine", "secrets": {"a": "b"}}):
        made = objects(values)
        assert "Secret" not in {object_["kind"] for object_ in made}
        volumes = one(made, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
        assert [v["secret"]["secretName"] for v in volumes if v["name"] == "secrets"] == ["mine"]
    made = objects({"existingConfigMap": "mine"})
    assert "ConfigMap" not in {object_["kind"] for object_ in made}


def test_labels_ports_and_the_job_fit_together(everything: list[dict[str, Any]]) -> None:
    """The Service finds the pods, the ServiceMonitor the Service, and the rules the job."""
    stateful, service = one(everything, "StatefulSet")["spec"], one(everything, "Service")
    monitor, policy = one(everything, "ServiceMonitor")["spec"], one(everything, "NetworkPolicy")["spec"]
    budget = one(everything, "PodDisruptionBudget")["spec"]
    labels = stateful["template"]["metadata"]["labels"]
    for selector in (
        stateful["selector"]["matchLabels"],
        service["spec"]["selector"],
        policy["podSelector"]["matchLabels"],
        budget["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert stateful["serviceName"] == service["metadata"]["name"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["jobLabel"]] == "connection-exporter"
    (container,) = stateful["template"]["spec"]["containers"]
    names = {
        container["ports"][0]["name"],
        service["spec"]["ports"][0]["targetPort"],
        monitor["endpoints"][0]["port"],
        policy["ingress"][0]["ports"][0]["port"],
    }
    assert names == {"http"}
    kustomized = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "servicemonitor.yaml").read_text())
    assert monitor["endpoints"] == kustomized["spec"]["endpoints"]


def test_rules_and_dashboards_are_those_of_the_repository(everything: list[dict[str, Any]]) -> None:
    """The chart has a link to each file, not copies."""
    groups = [
        group
        for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    rule = one(everything, "PrometheusRule")
    assert rule["spec"]["groups"] == groups
    assert rule["metadata"]["labels"]["release"] == "kube-prometheus-stack"
    for path in (ROOT / "grafana" / "dashboards").glob("*.json"):
        made = one(everything, "ConfigMap", f"-{path.stem}")
        (content,) = made["data"].values()
        assert json.loads(content) == json.loads(path.read_text())
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_dashboards_link_to_addresses_of_a_browser() -> None:
    """Each pod gets them as labels of its target, which only `up` keeps."""
    addresses = {
        "browserUrl": "https://status.example.com",
        "runbooksUrl": "https://wiki.example.com/runbooks",
    }
    monitor = one(objects({"serviceMonitor": {"enabled": True, **addresses}}), "ServiceMonitor")
    (endpoint,) = monitor["spec"]["endpoints"]
    labels = {rule.get("targetLabel"): rule.get("replacement") for rule in endpoint["relabelings"]}
    assert labels["browser_url"] == addresses["browserUrl"]
    assert labels["runbooks_url"] == addresses["runbooksUrl"]
    assert endpoint["metricRelabelings"] == [{"action": "labeldrop", "regex": "browser_url|runbooks_url"}]


def test_the_links_of_the_rules_can_point_elsewhere() -> None:
    values = {
        "enabled": True,
        "grafanaUrl": "https://grafana.example.com/",
        "runbooksUrl": "https://wiki.example.com/r",
    }
    text = json.dumps(one(objects({"prometheusRule": values}), "PrometheusRule"))
    assert "https://wiki.example.com/r/ConnectionDisconnected.md" in text
    assert "https://grafana.example.com/d/connection-service" in text
    assert "externalLabels.grafana_url" not in text
    assert "$externalURL" not in text


def test_tls_and_passwords_reach_the_probes_and_the_scrape() -> None:
    """With passwords, every route needs one, including those of the probes."""
    headers = [{"name": "Authorization", "value": "Basic cHJvYmU6cHJvYmU="}]
    access = {
        "scheme": "https",
        "tlsConfig": {"ca": {"secret": {"name": "web", "key": "ca.crt"}}, "serverName": "exporter"},
        "basicAuth": {
            "username": {"name": "web", "key": "user"},
            "password": {"name": "web", "key": "password"},
        },
    }
    made = objects(
        {
            "extraArgs": ["--web.config.file=/etc/web/web.yml"],
            "probes": {"scheme": "HTTPS", "httpHeaders": headers},
            "serviceMonitor": {"enabled": True, "endpoint": access},
        }
    )
    (container,) = one(made, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        asked = container[probe]["httpGet"]
        assert (asked["scheme"], asked["httpHeaders"]) == ("HTTPS", headers)
    (endpoint,) = one(made, "ServiceMonitor")["spec"]["endpoints"]
    assert access.items() <= endpoint.items()
    assert endpoint["interval"] == "5s"


@pytest.mark.parametrize("sources", [[], None])
def test_a_network_policy_without_sources_lets_nobody_in(sources: list[Any] | None) -> None:
    """Kubernetes takes an empty `from` for everybody."""
    made = objects({"networkPolicy": {"enabled": True, "from": sources}})
    assert one(made, "NetworkPolicy")["spec"]["ingress"] == []


@pytest.mark.parametrize("labels", [{"grafana_dashboard": None}, None])
def test_dashboards_need_no_labels_of_their_own(labels: dict[str, None] | None) -> None:
    made = objects({"dashboards": {"enabled": True, "labels": labels, "annotations": None}})
    metadata = one(made, "ConfigMap", "-overview")["metadata"]
    assert metadata["labels"]["app.kubernetes.io/name"] == "connection-exporter"
    assert "grafana_dashboard" not in metadata["labels"]
    assert "annotations" not in metadata


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shard": 3}, "shard"),
        ({"shards": 0}, "shards"),
        ({"image": {"tagg": "1"}}, "tagg"),
        ({"extraArgs": ["log.level=debug"]}, "extraArgs"),
        ({"serviceMonitor": {"interval": "soon"}}, "interval"),
        ({"service": {"type": "Ingress"}}, "type"),
    ],
)
def test_a_wrong_value_is_an_error_that_names_it(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ChartError, match=message):
        helm(values)


def test_the_schema_and_the_values_have_the_same_keys() -> None:
    """Every key of values.yaml is checked, and there is none that values.yaml does not show."""

    def keys(value: object, schema: dict[str, Any]) -> set[str]:
        inner = schema.get("properties")
        if inner is None:
            return set()
        assert isinstance(value, dict)
        assert value.keys() == inner.keys() - {"global"}
        return {f"{key}.{rest}" for key in value for rest in keys(value[key], inner[key])} | set(value)

    schema = json.loads((CHART / "values.schema.json").read_text())
    assert keys(yaml.safe_load((CHART / "values.yaml").read_text()), schema)


def test_the_notes_name_what_exists(everything: list[dict[str, Any]]) -> None:
    """The Service and the first pod; they say what is missing for Prometheus."""
    notes = {
        name: helm(values)["rendered"]["connection-exporter/templates/NOTES.txt"]
        for name, values in (("plain", {}), ("everything", EVERYTHING))
    }
    for text in notes.values():
        assert f"svc/{one(everything, 'Service')['metadata']['name']} 8000" in text
        assert f"exec {one(everything, 'StatefulSet')['metadata']['name']}-0 " in text
    assert "Prometheus does not scrape it yet" in notes["plain"]
    assert "Prometheus does not scrape it yet" not in notes["everything"]
