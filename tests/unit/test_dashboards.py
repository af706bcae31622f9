"""Dashboards and alerts ask Prometheus for what there is, and each alert fires and is quiet when it should."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import REGISTRY

import infra.telemetry  # noqa: F401 - importing it registers the metrics

_DEPLOY = Path(__file__).parents[2] / "infra" / "deploy"
_PROMETHEUS = _DEPLOY / "prometheus"
_OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"
_DASHBOARDS = sorted((_DEPLOY / "grafana").glob("*.json"))
_PROMTOOL = shutil.which("promtool")
_needs_promtool = pytest.mark.skipif(_PROMTOOL is None, reason="promtool is not installed")


def _expressions(dashboard: Path) -> list[str]:
    panels = json.loads(dashboard.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def _run(*arguments: str) -> None:
    result = subprocess.run([str(_PROMTOOL), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("dashboard", _DASHBOARDS, ids=lambda file: file.stem)
def test_panels_ask_for_metrics_and_labels_that_exist(dashboard: Path) -> None:
    """A metric or label that was renamed leaves no empty panel."""
    known = {
        sample: set(metric._labelnames)
        for metric in REGISTRY._collector_to_names
        if hasattr(metric, "_labelnames")
        for sample in REGISTRY._collector_to_names[metric]
    }
    for expression in _expressions(dashboard):
        names = re.findall(r"teamfit_\w+", expression)
        assert set(names) <= known.keys(), expression
        labels = {name for name in names for name in known[name]} | {"le"}
        for group in re.findall(r"by \(([\w, ]+)\)", expression):
            assert set(group.split(", ")) <= labels, expression


@_needs_promtool
def test_prometheus_reads_every_expression(tmp_path: Path) -> None:
    """Each panel's expression is one that Prometheus takes, with an interval in the place of Grafana's."""
    rules = [
        {"record": f"panel:{number}", "expr": expression.replace("$__rate_interval", "1m")}
        for number, expression in enumerate(one for file in _DASHBOARDS for one in _expressions(file))
    ]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    _run("check", "rules", str(file))


@_needs_promtool
def test_alerts_fire_and_are_quiet_when_they_should() -> None:
    """By the cases beside them."""
    _run("test", "rules", str(_PROMETHEUS / "alerts.test.yml"))


def test_each_alert_has_a_case_for_both() -> None:
    """Whoever adds an alert says when it fires, and when it does not."""
    (group,) = yaml.safe_load((_PROMETHEUS / "alerts.yml").read_text())["groups"]
    cases = yaml.safe_load((_PROMETHEUS / "alerts.test.yml").read_text())["tests"]
    told = {(one["alertname"], bool(one["exp_alerts"])) for case in cases for one in case["alert_rule_test"]}
    assert told == {(rule["alert"], fires) for rule in group["rules"] for fires in (True, False)}


def test_each_gauge_on_which_to_act_has_an_alert_or_is_named_as_having_none() -> None:
    """Whoever reads in the table of gauges when to act, and trusts that a rule looks, is right."""
    table = _OPERATING.read_text().partition("| gauge | means | act when |")[2].partition("\n\n")[0]
    told = {name: act.strip() for name, act in re.findall(r"^\| `(\w+)\{?[^`]*` \|.*\|([^|]*)\|$", table, re.MULTILINE)}
    asked = set(re.findall(r"teamfit_\w+", (_PROMETHEUS / "alerts.yml").read_text()))
    before = _OPERATING.read_text().partition("| gauge | means | act when |")[0].rpartition("\nTwo have none: ")[2]
    exempt = set(re.findall(r"`(teamfit_\w+)`", before))
    assert len(told) == table.count("| `teamfit_")
    assert {name for name, act in told.items() if act} - asked == exempt
