"""The files of infra/deploy/kubernetes/ fit the schemas of Kubernetes, and name what exists.

They are rendered as a cluster gets them.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from consumers.webhooks.sender import LONGEST_TRY_S
from infra.settings import Settings
from streams.jobs.stages import STAGES
from streams.redis.settings import RedisSettings
from tests.unit.test_deploy import parse

_ROOT = Path(__file__).parents[2]
_KUBERNETES = _ROOT / "infra" / "deploy" / "kubernetes"
_PAGE = _ROOT / "docs" / "kubernetes.md"
_KUBECTL = shutil.which("kubectl")
_FOLDERS = ("base", "autoscaled", "migrate")
_VERSIONS = ("1.29", kubernetes_validate.latest_version())
_STAGES = {stage.name for stage in STAGES}
_REACH_OUTSIDE = {"llm": "worker-generation", "webhooks": "worker-webhooks"}

pytestmark = pytest.mark.skipif(_KUBECTL is None, reason="kubectl, which renders the manifests, is not installed")

Manifest = dict[str, Any]


@cache
def _rendered(folder: Path) -> str:
    command = [str(_KUBECTL), "kustomize", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _manifests(folder: str, kind: str | None = None) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(_rendered(_KUBERNETES / folder)) if kind in (None, one["kind"])]


def _named(folder: str, kind: str) -> dict[str, Manifest]:
    return {one["metadata"]["name"]: one for one in _manifests(folder, kind)}


def _template(manifest: Manifest) -> Manifest:
    spec: Manifest = manifest["spec"]
    found: Manifest = spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    return found


def _pods() -> Iterator[tuple[str, Manifest]]:
    """Each template of pods there is, with the name of what makes them."""
    for folder in ("base", "migrate"):
        for manifest in _manifests(folder):
            if manifest["kind"] in {"Deployment", "CronJob", "Job"}:
                yield manifest["metadata"]["name"], _template(manifest)


def _selects(selector: Manifest, labels: dict[str, str]) -> bool:
    return set(selector["matchLabels"].items()) <= set(labels.items())


@pytest.mark.parametrize(("folder", "version"), list(product(_FOLDERS, _VERSIONS)))
def test_each_manifest_fits_the_schema(folder: str, version: str) -> None:
    """Of the oldest and of the newest Kubernetes, with no unknown field; KEDA's kinds have none."""
    for manifest in _manifests(folder):
        if not manifest["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_refuse_a_misspelt_field() -> None:
    """So that the test above can fail."""
    manifest = json.loads(json.dumps(_named("base", "Deployment")["api"]))
    manifest["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, _VERSIONS[0], strict=True)


def test_each_stage_has_its_workers() -> None:
    """They are those of the registry, each with its own command and secret."""
    workers = {name: one for name, one in _named("base", "Deployment").items() if name != "api"}
    assert set(workers) == {f"worker-{stage}" for stage in _STAGES}
    for name, worker in workers.items():
        stage = name.removeprefix("worker-")
        (container,) = _template(worker)["spec"]["containers"]
        assert container["args"] == ["worker", stage, "--ready-file", "ready"]
        assert container["envFrom"][1]["secretRef"]["name"] == f"teamfit-{stage}"


def test_commands_and_settings_exist() -> None:
    """Each container's command is one of ours, and each variable a setting."""
    known = {Settings.variable(field) for field in Settings.model_fields}
    for _, pod in _pods():
        (container,) = pod["spec"]["containers"]
        assert parse(container["args"]) is not None
        assert {variable["name"] for variable in container.get("env", ())} <= known
    (settings,) = _manifests("base", "ConfigMap")
    assert set(settings["data"]) <= known


def test_the_migration_is_a_hook_and_the_check_a_cron_job() -> None:
    """Argo CD runs the one before all else, with its own secret; the other runs each hour, and is not tried twice."""
    (migrate,) = _manifests("migrate", "Job")
    assert migrate["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "PreSync"
    assert _template(migrate)["spec"]["containers"][0]["args"] == ["migrate"]
    (verify,) = _manifests("base", "CronJob")
    assert _template(verify)["spec"]["containers"][0]["args"] == ["verify"]
    assert (verify["spec"]["schedule"].split()[1:], verify["spec"]["concurrencyPolicy"]) == (["*"] * 4, "Forbid")
    assert verify["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0


def test_pods_have_no_rights() -> None:
    """No root, no disk, no token of the cluster, no services' variables, bounded memory."""
    for name, pod in _pods():
        spec = pod["spec"]
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["volumes"] == [{"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}], name
        (container,) = spec["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["resources"]["limits"]["memory"], name


def test_no_secret_stands_in_a_file() -> None:
    """Each process names a secret of its own, and none is made here."""
    assert not any(one["kind"] == "Secret" for folder in _FOLDERS for one in _manifests(folder))
    named = [
        source["secretRef"]["name"]
        for _, pod in _pods()
        for source in pod["spec"]["containers"][0]["envFrom"]
        if "secretRef" in source
    ]
    assert sorted(named) == sorted(f"teamfit-{who}" for who in {*_STAGES, "api", "operator", "migrate"})


def test_what_runs_is_asked_whether_it_is_alive_and_ready() -> None:
    """An outage that a process waits out turns it unready, and starts nothing again."""
    for name, one in _named("base", "Deployment").items():
        (container,) = _template(one)["spec"]["containers"]
        assert container["startupProbe"]["httpGet"]["path"] == "/healthz", name
        assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", name
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz", name
        (port,) = container["ports"]
        words = [*container["args"], *(variable["value"] for variable in container.get("env", ()))]
        assert str(port["containerPort"]) in words, name


def test_a_stop_leaves_time_for_the_drain() -> None:
    """Each worker has more than its drain, and generation's drain is as long as a call."""
    drain = RedisSettings().drain.total_seconds()
    deployments = _named("base", "Deployment")
    for name, one in deployments.items():
        tries = 0 if name == "api" else LONGEST_TRY_S
        assert _template(one)["spec"]["terminationGracePeriodSeconds"] > drain + tries + 5
    (told,) = re.findall(r"drain=(\d+)s", _PAGE.read_text())
    assert int(told) >= Settings.model_fields["generation_timeout_s"].default
    assert _template(deployments["worker-generation"])["spec"]["terminationGracePeriodSeconds"] > int(told) + 5


def test_each_deployment_selects_its_own_pods_and_has_a_disruption_budget() -> None:
    """Two stages whose selectors overlapped would take each other's pods for their own."""
    deployments = _named("base", "Deployment")
    budgets = _named("base", "PodDisruptionBudget")
    assert set(budgets) == set(deployments)
    for name, other in product(deployments, repeat=2):
        labels = _template(deployments[other])["metadata"]["labels"]
        assert _selects(deployments[name]["spec"]["selector"], labels) is (name == other)
        assert _selects(budgets[name]["spec"]["selector"], labels) is (name == other)


def test_the_network_is_closed_but_for_what_is_named() -> None:
    """Each pod is closed both ways; generation and webhooks alone reach outside, and named namespaces alone come in."""
    policies = {folder: _named(folder, "NetworkPolicy") for folder in ("base", "migrate")}
    closing = [policies["base"]["all"], policies["migrate"]["migrate"]]
    for name, pod in _pods():
        labels = pod["metadata"]["labels"]
        over = [one for one in closing if _selects(one["spec"]["podSelector"], labels)]
        assert any(set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"} for one in over), name
        for reach, worker in _REACH_OUTSIDE.items():
            outside = _selects(policies["base"][reach]["spec"]["podSelector"], labels)
            assert outside is (name == worker), name
    for policy in (one for folder in policies.values() for one in folder.values()):
        for rule in policy["spec"].get("ingress", ()):
            assert all("teamfit/role" in who["namespaceSelector"]["matchLabels"] for who in rule["from"])
    for reach in _REACH_OUTSIDE:
        (rule,) = policies["base"][reach]["spec"]["egress"]
        assert "169.254.0.0/16" in rule["to"][0]["ipBlock"]["except"]


def test_generation_is_scaled_by_its_work() -> None:
    """By a query of Postgres, without a fallback, and without a number beside KEDA's."""
    (scaled,) = _manifests("autoscaled", "ScaledObject")
    spec = scaled["spec"]
    target = _named("autoscaled", "Deployment")[spec["scaleTargetRef"]["name"]]
    assert target["metadata"]["labels"]["app.kubernetes.io/component"] == "generation"
    assert "replicas" not in target["spec"]
    assert (spec["minReplicaCount"], "fallback" in spec) == (0, False)
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "postgresql"
    assert int(trigger["metadata"]["targetQueryValue"]) == Settings.model_fields["generation_concurrency"].default
    (secret,) = _named("autoscaled", "TriggerAuthentication")[trigger["authenticationRef"]["name"]]["spec"][
        "secretTargetRef"
    ]
    assert secret == {"parameter": "connection", "name": "teamfit-operator", "key": "DATABASE_URL"}


def test_the_overlay_of_the_page_renders(tmp_path: Path) -> None:
    """What a reader copies gives every container its image, and changes a setting."""
    (text,) = re.findall(r"```yaml\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert "../teamfit/infra/deploy/kubernetes/autoscaled" in text
    folder = os.path.relpath(_KUBERNETES / "autoscaled", tmp_path.resolve())
    overlay = text.replace("../teamfit/infra/deploy/kubernetes/autoscaled", folder)
    (tmp_path / "kustomization.yaml").write_text(overlay)
    manifests = list(yaml.safe_load_all(_rendered(tmp_path)))
    images = [
        container["image"]
        for one in manifests
        if one["kind"] in {"Deployment", "CronJob"}
        for container in _template(one)["spec"]["containers"]
    ]
    assert len(images) == len(_STAGES) + 2
    assert all(re.fullmatch(r"registry\.example\.com/teamfit@sha256:[0-9a-f]{64}", image) for image in images)
    (settings,) = (one["data"] for one in manifests if one["kind"] == "ConfigMap")
    assert settings["TEAMFIT_MODEL"] == "gpt-4o"


_OVERLAYS = {
    "a prefix": "namePrefix: eu-",
    "a prefix and a suffix": "namePrefix: eu-\nnameSuffix: -blue",
    "the longest name": f"namePrefix: {'a' * 30}-",
    "no replicas": "replicas: [{name: api, count: 0}, {name: worker-webhooks, count: 0}]",
    "annotations with anything": """commonAnnotations: {note: "say \\"hi\\"\\nand: 'bye' # no", "a.b/c": "{{ x }}"}""",
    "labels of numbers": 'labels: [{pairs: {cost-center: "0042", "on": "true"}, includeTemplates: true}]',
    "a digest and a port": f"images: [{{name: teamfit, newName: 'localhost:5000/a/b', digest: 'sha256:{'0' * 64}'}}]",
    "a tag of numbers": 'images: [{name: teamfit, newTag: "1.10"}]',
    "another secret": """patches:
  - target: {kind: Deployment, name: worker-quota}
    patch: |-
      - {op: replace, path: /spec/template/spec/containers/0/envFrom/1/secretRef/name, value: vault.quota-1}""",
    "settings with anything": """patches:
  - target: {kind: ConfigMap, name: teamfit}
    patch: |-
      - {op: add, path: /data/TEAMFIT_OIDC_SCOPE_CLAIM, value: "https://a.com/x: [1]\\n"}""",
}


@pytest.mark.parametrize("text", _OVERLAYS.values(), ids=_OVERLAYS.keys())
def test_an_overlay_changes_what_it_names(tmp_path: Path, text: str) -> None:
    """Whatever its names are, what is rendered fits the schema, and all that is named in it is there."""
    folder = os.path.relpath(_KUBERNETES / "autoscaled", tmp_path.resolve())
    (tmp_path / "kustomization.yaml").write_text(f"namespace: odd-1\nresources: [{folder}]\n{text}\n")
    manifests = list(yaml.safe_load_all(_rendered(tmp_path)))
    names = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    assert {one["metadata"].get("namespace", "odd-1") for one in manifests} == {"odd-1"}
    for manifest in manifests:
        if not manifest["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(manifest, _VERSIONS[0], strict=True)
        if manifest["kind"] in {"Deployment", "CronJob"}:
            (container,) = _template(manifest)["spec"]["containers"]
            assert ("ConfigMap", container["envFrom"][0]["configMapRef"]["name"]) in names
    (scaled,) = (one["spec"] for one in manifests if one["kind"] == "ScaledObject")
    assert ("Deployment", scaled["scaleTargetRef"]["name"]) in names
    assert ("TriggerAuthentication", scaled["triggers"][0]["authenticationRef"]["name"]) in names
