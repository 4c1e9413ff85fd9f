"""What is deployed has the right shape: Compose file, Dockerfile, Kubernetes objects and the systemd unit."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from connection_exporter.config.shard import Shard, parse_shard
from connection_exporter.kinds import load

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
CONFIGS = [
    ROOT / "deploy" / "compose" / "config" / "connection-exporter.yml",
    ROOT / "deploy" / "compose" / "demo" / "connection-exporter.yml",
    KUBERNETES / "connection-exporter.yml",
    KUBERNETES / "connection-exporter-push.yml",
]


def document(name: str) -> Any:
    """Parse one file of deploy/kubernetes."""
    return yaml.safe_load((KUBERNETES / name).read_text())


def objects() -> list[dict[str, Any]]:
    """Return the objects that the kustomization names, but the dashboards."""
    names = [name for name in document("kustomization.yaml")["resources"] if name.endswith(".yaml")]
    return [document(name) for name in [*names, "networkpolicy.yaml"]]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_config_that_is_shipped_loads(path: Path) -> None:
    """With no variable set and no secret there. Its folder contains nothing else, because the folder is mounted."""
    assert load(path).services
    if path.parent.parent.name == "compose":
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "variable"), [("exporter", "EXPORTER_URL"), ("demo-exporter", "DEMO_EXPORTER_URL")]
)
def test_the_links_in_alerts_open_outside_of_compose(
    name: str, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of a container would open nowhere. By default they lead to the published port, else where .env says."""
    service = SERVICES[name]
    default = re.fullmatch(rf"\$\{{{variable}:-(.*)\}}", service["environment"][variable])
    assert default is not None
    (port,) = re.findall(r":-(\d+)\}:8000$", service["ports"][0])
    assert default[1] == f"http://localhost:{port}"
    (folder,) = (v.split(":")[0] for v in service["volumes"] if v.endswith(":/etc/connection-exporter:ro"))
    for url in (default[1], "https://monitor.example.com"):
        monkeypatch.setenv(variable, url)
        alerting = load(ROOT / folder / "connection-exporter.yml").alerting
        assert alerting is not None
        assert alerting.external_url == url
        assert alerting.alertmanagers == ["http://alertmanager:9093"]


def test_kubernetes_can_push_to_every_pod_of_alertmanager() -> None:
    """The second config watches the same, and the kustomization names the line that selects it."""
    plain, push = (load(KUBERNETES / f"connection-exporter{suffix}.yml") for suffix in ("", "-push"))
    assert plain.services == push.services
    assert plain.alerting is None
    assert push.alerting is not None
    pods = [url.removeprefix("http://").partition(".")[0] for url in push.alerting.alertmanagers]
    assert pods == [f"alertmanager-main-{number}" for number in range(len(pods))]
    assert len(pods) > 1
    assert push.alerting.external_url is not None
    (selected,) = document("kustomization.yaml")["configMapGenerator"]
    text = (KUBERNETES / "kustomization.yaml").read_text()
    line = f"    files: [{selected['files'][0]}]\n"
    other = "    # files: [connection-exporter.yml=connection-exporter-push.yml]\n"
    assert line in text
    assert other in text
    switched = yaml.safe_load(text.replace(line, "").replace(other, other.replace("# ", "")))
    assert switched["configMapGenerator"][0]["files"] == [
        "connection-exporter.yml=connection-exporter-push.yml"
    ]


@pytest.mark.parametrize("name", SERVICES)
def test_every_compose_service_is_hardened(name: str) -> None:
    """Read-only, no capabilities, no new privileges, bounded logs, memory and processes, and a health check."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}
    assert "mem_limit" in service
    assert service["pids_limit"] <= 512
    assert "healthcheck" in service or service["image"] == "connection-exporter:local"  # ours brings its own
    assert service.get("user") != "root"
    assert not service.get("privileged")


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    """More has to be asked for."""
    assert all(port.startswith("127.0.0.1:${") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_every_public_image_has_an_exact_tag(name: str) -> None:
    """And ours is built here, once."""
    image, _, tag = SERVICES[name]["image"].partition(":")
    # PostgreSQL's minor version is its patch.
    exact = r"\d+\.\d+" if image == "postgres" else r"v?\d+\.\d+\.\d+"
    assert re.fullmatch(rf"{exact}|local", tag)
    assert (image == "connection-exporter") == (tag == "local")


@pytest.mark.parametrize("name", SERVICES)
def test_configs_are_mounted_read_only_from_files_that_exist(name: str) -> None:
    """Docker makes a folder where a mounted file is missing, and the program then says something strange."""
    for volume in SERVICES[name].get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert rest.endswith(":ro"), volume
        else:
            assert source in COMPOSE["volumes"]


def test_configs_are_mounted_as_folders() -> None:
    """A mount of a single file keeps the old inode when an editor replaces the file."""
    for name in ("exporter", "demo-exporter"):
        mounts = [volume.split(":") for volume in SERVICES[name]["volumes"]]
        (config,) = [source for source, target, _ in mounts if target == "/etc/connection-exporter"]
        assert (ROOT / config).is_dir()


@pytest.mark.parametrize("password", ["", "GF_SECURITY_ADMIN_PASSWORD", "GF_SECURITY_ADMIN_PASSWORD__FILE"])
def test_grafana_has_an_administrator_only_with_a_password(password: str) -> None:
    """Its entry point is run here unchanged, up to Grafana itself. Nobody can log in as admin with admin."""
    grafana = SERVICES["grafana"]
    assert "admin" not in grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"].rpartition(":-")[2]
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    shell, flag, script = grafana["entrypoint"]
    script = script.replace("$$", "$").replace("exec /run.sh", "exec env")
    variables = {"PATH": os.environ["PATH"], **({password: "x"} if password else {})}
    shown = subprocess.run(
        [shell, flag, script], env=variables, capture_output=True, text=True, check=True
    ).stdout
    closed = {
        "GF_AUTH_DISABLE_LOGIN_FORM",
        "GF_AUTH_BASIC_ENABLED",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION",
    }
    assert {line.split("=")[0] for line in shown.splitlines()} & closed == (set() if password else closed)


def test_grafana_finds_every_folder_of_its_provisioning() -> None:
    """It logs an error for each that is missing."""
    for name in ("alerting", "dashboards", "datasources", "plugins"):
        assert (ROOT / "grafana" / "provisioning" / name).is_dir()


def test_the_stack_starts_in_order_and_the_demo_only_when_asked() -> None:
    """Nothing outside the profile waits for something in it."""
    plain = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert plain == {"exporter", "prometheus", "alertmanager", "alertmanager-config", "grafana"}
    for name in plain:
        assert set(SERVICES[name].get("depends_on", {})) <= plain
    assert SERVICES["demo-exporter"]["pid"] == "service:bot"


def test_alertmanager_gets_every_variable_of_its_renderer() -> None:
    """A variable that the compose file does not hand on is set in vain."""
    script = [sys.executable, str(ROOT / "alertmanager" / "render.py"), "--help"]
    text = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"^  (ALERT_\w+) ", text, re.MULTILINE)) | {"AWS_SHARED_CREDENTIALS_FILE"}
    environment = SERVICES["alertmanager-config"]["environment"]
    assert environment == {name: f"${{{name}:-}}" for name in known}


def test_prometheus_keeps_longer_than_the_longest_window() -> None:
    """The default of 15 days would cut the 30 days of the service levels."""
    assert "--storage.tsdb.retention.time=45d" in SERVICES["prometheus"]["command"]


def test_prometheus_can_restart_without_an_end_of_its_alerts() -> None:
    """The stack of the tests shows that it does; it has the same flags."""
    servers = (ROOT / "scripts" / "stack_servers.py").read_text()
    for flag in ("--rules.alert.resend-delay=15s", "--rules.alert.for-grace-period=10s"):
        assert flag in SERVICES["prometheus"]["command"]
        assert flag in servers


def test_the_image_runs_as_somebody_else_and_keeps_nothing_to_build_with() -> None:
    """A numeric user, so that Kubernetes can tell; pip goes; health is asked without any tool."""
    text = (ROOT / "Dockerfile").read_text()
    final = text.rsplit("\nFROM ", 1)[1]
    assert text.count("\nFROM ") == 2
    assert len(re.findall(r"^FROM python:\d+\.\d+\.\d+-slim", text, re.MULTILINE)) == 2, "exact versions"
    assert re.search(r"^USER 65534:65534$", final, re.MULTILINE)
    assert "pip uninstall" in final
    assert "apt-get" not in text
    assert "HEALTHCHECK" in final
    assert "STOPSIGNAL SIGTERM" in final
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=\"[^\"]+\"", final))
    assert labels >= {"title", "description", "licenses", "url", "source", "version", "revision"}


def test_the_image_is_built_with_every_file_that_the_wheel_takes() -> None:
    """Each is copied, and .dockerignore lets it through; the build fails without one of them."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {*wheel["packages"], *wheel["force-include"], *wheel["shared-data"]}
    copied = set(re.findall(r"^COPY (\S+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert {path for path in needed if path.split("/")[0] not in copied} == set()
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = tuple(rule.removeprefix("!") for rule in rules if rule.startswith("!"))
    assert {
        path for path in needed if not f"{path}/".startswith(tuple(f"{one}/" for one in allowed))
    } == set()


def test_the_rules_of_kubernetes_are_those_of_prometheus() -> None:
    """Generated and committed are equal."""
    command = [sys.executable, str(ROOT / "scripts" / "kubernetes.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0
    rule = document("prometheusrule.yaml")
    groups = [
        group
        for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
    ]
    assert rule["spec"]["groups"] == groups
    assert len({group["name"] for group in groups}) == len(groups)


def test_the_links_of_kubernetes_rules_can_point_elsewhere(tmp_path: Path) -> None:
    """No link to localhost is left."""
    output = tmp_path / "rule.yaml"
    links = ["--grafana=https://grafana.example.com/", "--runbooks=https://wiki.example.com/runbooks"]
    command = [sys.executable, str(ROOT / "scripts" / "kubernetes.py"), f"--output={output}", *links]
    subprocess.run(command, check=True)
    text = output.read_text()
    assert "localhost" not in text
    assert "https://wiki.example.com/runbooks/ConnectionDisconnected.md" in text
    assert "https://grafana.example.com/d/connection-service" in text


def test_every_object_of_kubernetes_has_what_the_api_wants() -> None:
    """A version, a kind and a name; the namespace comes from the kustomization."""
    kinds = {
        "Namespace": "v1",
        "Service": "v1",
        "StatefulSet": "apps/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "ServiceMonitor": "monitoring.coreos.com/v1",
        "PrometheusRule": "monitoring.coreos.com/v1",
    }
    assert {one["kind"]: one["apiVersion"] for one in objects()} == kinds
    assert {one["metadata"]["name"] for one in objects()} == {"connection-exporter"}


def test_the_pod_is_hardened_and_probed() -> None:
    """What the restricted standard of pod security asks for, and more."""
    pod = document("statefulset.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["livenessProbe"]["httpGet"] == {"path": "/-/healthy", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/-/ready", "port": "http"}
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


def test_each_pod_monitors_its_own_share() -> None:
    """All pods have the same arguments. The name of each ends in its number, and is the `instance` of its series."""
    workload = document("statefulset.yaml")["spec"]
    (container,) = workload["template"]["spec"]["containers"]
    (shards,) = [one["value"] for one in container["env"] if one["name"] == "CONNECTION_EXPORTER_SHARD"]
    assert parse_shard(shards, "connection-exporter-0") == Shard(0, workload["replicas"])
    relabelings = document("servicemonitor.yaml")["spec"]["endpoints"][0]["relabelings"]
    assert {"sourceLabels": ["__meta_kubernetes_pod_name"], "targetLabel": "instance"} in relabelings


def test_labels_ports_and_the_job_fit_together() -> None:
    """The service finds the pod, the monitor the service, and the rules the job."""
    workload, service = document("statefulset.yaml"), document("service.yaml")
    monitor, policy = document("servicemonitor.yaml"), document("networkpolicy.yaml")
    labels = workload["spec"]["template"]["metadata"]["labels"]
    (container,) = workload["spec"]["template"]["spec"]["containers"]
    assert workload["spec"]["serviceName"] == service["metadata"]["name"]
    assert workload["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "connection-exporter"
    assert policy["spec"]["podSelector"]["matchLabels"] == labels
    assert monitor["spec"]["endpoints"][0]["interval"] == "5s"


def test_every_dashboard_is_a_config_map() -> None:
    """Each of its own, for the API takes no object above a megabyte, and apply no annotation above 256 KiB."""
    folder = ROOT / "grafana" / "dashboards"
    assert "../../grafana/dashboards" in document("kustomization.yaml")["resources"]
    made = yaml.safe_load((folder / "kustomization.yaml").read_text())["configMapGenerator"]
    files = [name for one in made for name in one["files"]]
    assert sorted(files) == sorted(path.name for path in folder.glob("*.json"))
    assert all(len(one["files"]) == 1 for one in made)
    assert all((folder / name).stat().st_size < 200_000 for name in files)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not on this machine")
def test_kubectl_builds_the_kustomization() -> None:
    """Offline, as `kubectl apply -k` would: the config by its hashed name, all in one namespace."""
    built = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True, check=False, timeout=50
    )
    assert built.returncode == 0, built.stderr
    made = list(yaml.safe_load_all(built.stdout))
    assert sorted(one["kind"] for one in made) == sorted(
        ["Namespace", "StatefulSet", "Service", "ServiceMonitor", "PrometheusRule", *["ConfigMap"] * 5]
    )
    assert {one["metadata"].get("namespace", "connection-exporter") for one in made} == {
        "connection-exporter"
    }
    (workload,) = (one for one in made if one["kind"] == "StatefulSet")
    volumes = {v["name"]: v for v in workload["spec"]["template"]["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"].startswith("connection-exporter-")


def test_the_unit_is_hardened_and_reloads() -> None:
    """An account of its own, a system that it can only read, room for descriptors, SIGHUP."""
    path = ROOT / "deploy" / "systemd" / "connection-exporter.service"
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string(path.read_text())
    service = unit["Service"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert (service["DynamicUser"], service["ProtectSystem"]) == ("yes", "strict")
    assert int(service["LimitNOFILE"]) >= 65536
    assert service["MemoryMax"].endswith("M")
    assert int(service["TasksMax"]) <= 512
    assert service["CapabilityBoundingSet"] == ""


def test_systemd_finds_nothing_in_the_unit(tmp_path: Path, systemd_analyze: str) -> None:
    """With a program that is there."""
    text = (ROOT / "deploy" / "systemd" / "connection-exporter.service").read_text()
    unit = tmp_path / "connection-exporter.service"
    unit.write_text(re.sub(r"/opt/\S+/connection-exporter(?= )", sys.executable, text))
    verified = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")


def test_systemd_finds_nothing_in_the_socket(tmp_path: Path, systemd_analyze: str) -> None:
    """With the drop-in by which the service takes it over; the socket is the exporter's usual address."""
    folder = ROOT / "deploy" / "systemd"
    (tmp_path / "connection-exporter.service.d").mkdir()
    for name in (
        *("connection-exporter.service", "connection-exporter.socket"),
        "connection-exporter.service.d/socket.conf",
    ):
        text = re.sub(r"/opt/\S+/connection-exporter(?= )", sys.executable, (folder / name).read_text())
        (tmp_path / name).write_text(text)
        if name.endswith("socket.conf"):
            assert "--web.systemd-socket" in text
    verified = subprocess.run(
        [systemd_analyze, "verify", "--man=no", str(tmp_path / "connection-exporter.socket")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    assert "ListenStream=127.0.0.1:8000" in (folder / "connection-exporter.socket").read_text()
