"""Tables and lists of the documents have what the code has: no row too few, none too many, each as it is."""

import ast
import builtins
import os
import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import asyncpg
import pytest
import typer.main
import yaml
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

import infra.telemetry  # noqa: F401 - importing it registers the metrics
from consumers.generation.blame import Blame
from infra import database_url
from infra.cli import app
from infra.cli.job import _SECTIONS
from infra.cli.options import _OPTIONS
from infra.database_url import read_database_url
from infra.errors import InvalidSetting
from infra.operations import faults
from infra.operations.controls import BY_ORGANIZATION, PAUSABLE
from infra.postgres_errors import AWAY, DATA_ERRORS, OTHER_SCHEMA
from infra.settings import Settings
from streams.delivery.deliveries import DEAD_LETTERS
from streams.delivery.standstill import BUG
from streams.jobs import faust_app
from streams.jobs.stages import RELEASED_TO, RUN_TOPICS, STAGES
from streams.jobs.topics import JOB_EVENTS, TOPICS
from streams.jobs.waits import Gate

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_CODE = re.compile(r"`([^`]+)`")


def _page(name: str) -> str:
    return (ROOT / name).read_text()


def _section(name: str, heading: str) -> str:
    return _page(name).partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def _rows(text: str, header: str) -> list[list[str]]:
    """Return the cells of the table with this header."""
    table = text.partition(f"| {header} |\n")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in table.splitlines()[1:]]


def _sentence(text: str) -> str:
    return " ".join(text.split())


def test_each_metric_has_its_labels() -> None:
    """Whoever writes a rule by the operators' page groups by what there is."""
    labels: Mapping[str, tuple[str, ...]] = {
        sample: metric._labelnames
        for metric in REGISTRY._collector_to_names
        if hasattr(metric, "_labelnames")
        for sample in REGISTRY._collector_to_names[metric]
    }
    rows = re.findall(r"^\| (`teamfit_\w+.*?) \|", _page("docs/operating.md"), re.MULTILINE)
    told = [re.fullmatch(r"(\w+)(?:\{(.*)\})?", one) for row in rows for one in _CODE.findall(row)]
    shown = {one[1]: tuple((one[2] or "").replace(" ", "").split(",")) for one in told if one}
    assert shown == {name: labels[name] or ("",) for name in shown}


def test_reasons_for_which_a_stage_is_held_are_those_of_the_gauge() -> None:
    """The page explains each value of the label `reason`."""
    (row,) = re.findall(r"^\| `teamfit_stage_held.*$", _page("docs/operating.md"), re.MULTILINE)
    reasons = {
        faust_app._POSTGRES,
        faust_app._BROKER,
        faust_app._LLM,
        faust_app._STAGE,
        BUG,
        faust_app._TIMER,
    }
    assert set(_CODE.findall(row.split(" | ")[1])) == reasons


def test_what_can_be_paused_is_what_the_page_says() -> None:
    """For all, and for one organization."""
    text = _sentence(_section("docs/operating.md", "Control of the running fleet"))
    (all_of_them,) = re.findall(r"\. ([^.]*) can be paused; the schedule", text)
    (of_one,) = re.findall(r"\*\*For one organization\*\*, ([^.]*) can be paused", text)
    assert tuple(_CODE.findall(all_of_them)) == PAUSABLE
    assert tuple(_CODE.findall(of_one)) == BY_ORGANIZATION


def test_the_sections_of_a_jobs_life_are_those_that_are_printed() -> None:
    """What `teamfit job show` prints is explained line by line, in its order."""
    block = _section("docs/operating.md", "A job stands still").partition("$ teamfit job show")[2].partition("```")[0]
    assert [line.partition("   ")[0] for line in block.splitlines()[1:]] == [*_SECTIONS.values()]


def test_the_bad_deploy_that_is_shown_is_one_that_makes_dead_letters() -> None:
    """What is told as an outage costs no attempt, and what the data of one event causes makes no stage suspected."""
    section = _section("docs/operating.md", "A bad deploy")
    (name,) = re.findall(r"lately with (\w+):", section)
    error: type[Exception] = getattr(builtins, name, None) or getattr(asyncpg, name)
    assert not issubclass(error, (*AWAY, *OTHER_SCHEMA, *DATA_ERRORS))
    assert f"--error {name}\n" in section


def test_each_fault_names_a_section_of_the_operators_page() -> None:
    """A line of the overview, and a bar of the console, lead to what is to be done."""
    tree = ast.parse(_page("infra/operations/faults.py"))
    made = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and ast.unparse(one.func) == "Fault"]
    named = {one.args[2].value for one in made if isinstance(one.args[2], ast.Constant)}
    assert len(made) > len(named) > 1
    assert named | {faults._LLM} <= set(re.findall(r"^## (.*)$", _page("docs/operating.md"), re.MULTILINE))


def test_each_gate_of_a_job_is_explained() -> None:
    """Whoever reads `waiting_for` finds what it waits for."""
    rows = _rows(_page("docs/fairness.md"), "`gate` | the job waits for | `until`, `before`")
    assert len(rows) == len(get_args(Gate))
    assert {_CODE.findall(row[0])[0] for row in rows} == set(get_args(Gate))


def test_the_glossary_has_each_kind_of_blame() -> None:
    """As calls are recorded."""
    (row,) = re.findall(r"^\| blame \|.*$", _page("docs/glossary.md"), re.MULTILINE)
    assert [one for one in get_args(Blame) if one not in row] == []


def test_the_options_that_find_failed_events_are_listed() -> None:
    """One set of filters, for lists, groups and plans."""
    text = _page("docs/replay.md").partition("`teamfit failed list` takes ")[2].partition("in any combination")[0]
    assert set(re.findall(r"`--(\w+)`", text)) == set(_OPTIONS)


def test_the_readmes_table_of_settings_is_complete() -> None:
    """Every setting is there with its default and description, so neither can change without the other."""
    table = _section("README.md", "Settings").partition("| --- |")[2]
    rows = re.findall(r"^\| `.*$", table, re.MULTILINE)
    assert sorted(rows) == sorted(
        f"| `{Settings.variable(name)}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    )


def _shown(default: object) -> str:
    """Return a setting's default as one would write it into the environment; none is an empty cell."""
    if default is None or default == "":
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def test_the_readme_leads_to_each_page() -> None:
    """Who looks for a page begins there."""
    linked = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", _page("README.md"))}
    pages = {str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("*.md")}
    assert pages - linked == set()


def test_what_the_readme_says_of_costs_was_measured() -> None:
    """Each figure stands where the measurement is told."""
    measured = _page("docs/capacity.md") + _page("streams/redis/README.md")
    figures = re.findall(r"\b\d[\d,.]*\d\b", _section("README.md", "What it costs"))
    assert len(figures) > 5
    assert [one for one in figures if one not in measured] == []


def _bare(requirement: str) -> str:
    return re.split(r"[\[<>=; ]", requirement)[0]


def test_the_readme_says_why_each_dependency_is_there() -> None:
    """Of what production installs, and of what the local stack does."""
    project = tomllib.loads(_page("pyproject.toml"))["project"]
    needed = {_bare(one) for one in (*project["dependencies"], *project["optional-dependencies"]["embedded"])}
    rows = _section("README.md", "Why each dependency is there")
    told = {name for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in _CODE.findall(row)}
    assert told - {"hiredis"} == needed - {"aiokafka"}
    assert "`aiokafka`" in rows


_TOPIC = re.compile(r"~([a-z-]+) ~\{")


def _users() -> dict[str, str]:
    """Return the broker's users with the words of their rules, as `users.sh` prints them."""
    names = ("ADMIN", "UPSTREAM", "API", "OPERATOR", *(one.upper() for one in PAUSABLE), "SCHEDULE")
    variables = {f"BROKER_PASSWORD_{name}": "PASSWORD" for name in names}
    script = ROOT / "infra" / "deploy" / "valkey" / "users.sh"
    done = subprocess.run(
        ["/bin/sh", script], env={"PATH": os.environ["PATH"], **variables}, capture_output=True, text=True, check=True
    )
    return {line.split()[1]: line for line in done.stdout.splitlines()}


def _may(rules: str, command: str) -> set[str]:
    """Return the streams on which the parts of a user's rules allow a command."""
    parts = re.findall(r"\(([^)]*)\)", rules) or [rules]
    return {topic for part in parts if f"+{command} " in f"{part} " for topic in _TOPIC.findall(part)}


def test_who_gets_what_is_what_the_brokers_users_may() -> None:
    """Each row of the table has the streams that its user may write and take from; `users.sh` gives no other."""
    users = _users()
    header = "process | signing key | LLM key | role of the database | user of the broker | writes | takes from"
    rows = {_CODE.findall(row[4])[0]: row for row in _rows(_page("docs/deploying.md"), header) if row[4]}
    assert rows.keys() == users.keys() - {"default", "admin"}
    for user, row in rows.items():
        writes = set(TOPICS) if "all streams" in row[5] else set(_CODE.findall(row[5]))
        assert (user, _may(users[user], "xadd")) == (user, writes)
        assert (user, _may(users[user], "xreadgroup")) == (user, set(_CODE.findall(row[6])))
    assert f"\n{users['upstream']}\n" in _page("docs/deploying.md")


def test_the_brokers_users_may_what_the_registry_has_them_do() -> None:
    """A stage reads its topics and no others; one that runs pass writes each topic that brings a run onward."""
    users = _users()
    onward = {RUN_TOPICS[stage][0] for stage in RELEASED_TO}
    for stage in STAGES:
        assert (stage.name, _may(users[stage.name], "xreadgroup")) == (stage.name, set(stage.reads))
        if stage.name in RUN_TOPICS:
            assert _may(users[stage.name], "xadd") == onward | {JOB_EVENTS, DEAD_LETTERS}


_VALUES = {
    "sslmode": "require",
    "sslrootcert": "system",
    "sslcert": "",
    "sslkey": "",
    "sslcrl": "",
    "sslnegotiation": "postgres",
    "target_session_attrs": "primary",
    "connect_timeout": "5",
    "options": "-c%20jit%3Doff",
}


def _what_becomes_of(parameter: str) -> str:
    name, _, value = parameter.partition("=")
    url = f"postgresql://one@localhost/teamfit?{name}={value or _VALUES.get(name, 'x')}"
    read_database_url.cache_clear()
    with capture_logs() as logged:
        try:
            read_database_url(url)
        except InvalidSetting:
            return "refused"
    return "ignored" if any(one["event"] == "database_url.parameter_ignored" for one in logged) else "taken"


def test_what_becomes_of_each_parameter_of_the_databases_url() -> None:
    """As the table says: taken, ignored with a warning, or refused."""
    rows = _rows(_page("docs/deploying.md"), "parameter | what becomes of it")
    told = {name: row[1] for row in rows for name in _CODE.findall(row[0])}
    assert {*database_url._SERVER_SETTINGS, "channel_binding", "schema", "sslmode", "service"} <= told.keys()
    for name, becomes in told.items():
        expected = next((one for one in ("ignored", "refused") if becomes.startswith(one)), "taken")
        assert (name, _what_becomes_of(name)) == (name, expected)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_line_for_compose_has_the_secrets(document: Path) -> None:
    """Without them compose refuses to do anything."""
    lines = re.findall(r"^.*docker compose -.*$", document.read_text(), re.MULTILINE)
    assert [line for line in lines if "--env-file infra/deploy/secrets.env" not in line] == []


def test_the_ways_to_run_a_command_have_the_api_s_secrets() -> None:
    """They make tokens too: the file that step 2 writes with the key and the database is the one that they read."""
    page = _page("docs/deploying.md")
    (written,) = re.findall(r"printf '%s\\n' \"TEAMFIT_SIGNING_KEY=[^>]*> (\S+)", page)
    by_systemd, by_compose = re.findall(r"^teamfit\(\) .*$", page, re.MULTILINE)
    assert f"EnvironmentFile={written} " in by_systemd
    assert " run --rm api " in by_compose


def test_the_page_for_kubernetes_names_each_stage_that_reaches_outside() -> None:
    """Whoever opens a firewall by it opens what is needed."""
    policies = yaml.safe_load_all(_page("infra/deploy/kubernetes/base/network.yaml"))
    outside = [
        one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for one in policies
        if any("ipBlock" in to for rule in one["spec"].get("egress", ()) for to in rule.get("to", ()))
    ]
    assert f"; {' and '.join(outside)} also reach port 443 outside" in _sentence(_page("docs/kubernetes.md"))


def _commands() -> list[str]:
    found: list[str] = []

    def walk(command: object, context: typer.Context, words: list[str]) -> None:
        if (names := getattr(command, "list_commands", None)) is None:
            found.append(" ".join(words))
            return
        for name in names(context):
            inner = command.get_command(context, name)  # type: ignore[attr-defined] # it is a group
            walk(inner, typer.Context(inner, parent=context), [*words, name])

    root = typer.main.get_command(app)
    walk(root, typer.Context(root), [])
    return found


def test_each_command_is_named_in_a_document() -> None:
    """In full, or after its group: `teamfit replay plan`, `apply`, `status`."""
    lines = "\n".join(path.read_text() for path in DOCUMENTS).splitlines()

    def is_named(command: str) -> bool:
        group, _, name = command.rpartition(" ")
        in_full = re.compile(rf"(\bteamfit |`){re.escape(command)}\b")
        of_group = re.compile(rf"(teamfit |`){re.escape(group)} .*`{re.escape(name)}[` ]")
        return any(in_full.search(line) or (group and of_group.search(line)) for line in lines)

    assert [command for command in _commands() if not is_named(command)] == []
