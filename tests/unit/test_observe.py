"""Prometheus, Tempo and Grafana beside the containers: files that fit one another. No container is run here."""

import json
import re
from typing import Any

import yaml

from infra.settings import Settings
from tests.unit.test_deploy import _DEPLOY, Service

_FILE = yaml.safe_load((_DEPLOY / "observe.yaml").read_text())
_SERVICES = {name: Service(**service) for name, service in _FILE["services"].items()}


def _mounts(name: str) -> dict[str, str]:
    """Files of the repository by where a container has them."""
    pairs = (volume.split(":")[:2] for volume in _SERVICES[name].volumes)
    return {inside: file for file, inside in pairs if file.startswith("./")}


def _read(file: str) -> Any:
    return yaml.safe_load((_DEPLOY / file).read_text())


def test_what_is_mounted_is_there() -> None:
    """Each file, read-only, and each volume declared; nothing is open to other machines; images come by digest."""
    for name, service in _SERVICES.items():
        assert all((_DEPLOY / file).is_file() for file in _mounts(name).values())
        assert all(volume.endswith(":ro") for volume in service.volumes if volume.startswith("./"))
        named = {volume.partition(":")[0] for volume in service.volumes if not volume.startswith("./")}
        assert named <= set(_FILE["volumes"])
        assert all(port.startswith("127.0.0.1:") for port in service.ports)
        assert re.search(r"^[\w/]+@\$\{\w+_DIGEST:\?", service.image)


def test_every_dashboard_is_provisioned() -> None:
    """In the folder that Grafana is told of, each with an ID of its own, and all that are in the repository."""
    (provider,) = _read("grafana/provisioning/dashboards.yml")["providers"]
    folder = provider["options"]["path"]
    mounted = {file for inside, file in _mounts("grafana").items() if inside.startswith(f"{folder}/")}
    files = sorted((_DEPLOY / "grafana").glob("*.json"))
    assert {f"./grafana/{file.name}" for file in files} == mounted
    assert len({json.loads(file.read_text())["uid"] for file in files}) == len(files)


def test_sources_are_the_services() -> None:
    """At the ports where they listen; an exemplar leads to the source of traces."""
    sources = {one["uid"]: one for one in _read("grafana/provisioning/datasources.yml")["datasources"]}
    tempo = _read("tempo/tempo.yml")
    assert sources["prometheus"]["url"] == "http://prometheus:9090"
    assert sources["tempo"]["url"] == f"http://tempo:{tempo['server']['http_listen_port']}"
    (destination,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert sources[destination["datasourceUid"]]["type"] == "tempo"


def test_the_documented_endpoint_is_where_traces_come_in() -> None:
    """What docs/traces.md has one set reaches the receiver."""
    receiver = _read("tempo/tempo.yml")["distributor"]["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    line = f"OTEL_EXPORTER_OTLP_ENDPOINT=http://tempo:{receiver.rpartition(':')[2]}"
    assert line in (_DEPLOY.parents[1] / "docs" / "traces.md").read_text()
    assert Settings(_env_file=None).otlp_endpoint is None
