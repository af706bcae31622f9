"""The files of infra/deploy/ name commands, settings, metrics and pages that exist: this fails when one is renamed."""

import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import click
import pytest
import typer.main
import yaml
from prometheus_client import REGISTRY
from pydantic import BaseModel, ConfigDict

import infra.telemetry  # noqa: F401 - importing it registers the metrics
from consumers.webhooks.sender import LONGEST_TRY_S
from infra.cli import app
from infra.local.stack import ALL
from infra.settings import Settings
from streams.jobs.stages import STAGES
from streams.redis.commands import WORKER
from streams.redis.settings import RedisSettings

_ROOT = Path(__file__).parents[2]
_DEPLOY = _ROOT / "infra" / "deploy"
_SETTINGS = {Settings.variable(name) for name in Settings.model_fields}
_STAGES = {stage.name for stage in STAGES}


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Healthcheck(_Closed):
    test: list[str]
    interval: str
    timeout: str
    start_period: str = "0s"


class Build(_Closed):
    context: str
    dockerfile: str
    args: dict[str, str]


class Service(_Closed):
    """What a service of the compose file may say; a misspelt key is an error here, as it is to compose."""

    image: str
    build: Build | None = None
    env_file: str | None = None
    environment: dict[str, str] = {}
    command: list[str] = []
    restart: Literal["unless-stopped", "no"]
    read_only: bool = False
    tmpfs: list[str] = []
    cap_drop: list[str] = []
    security_opt: list[str] = []
    mem_limit: str | None = None
    shm_size: str | None = None
    stop_grace_period: str
    depends_on: dict[str, dict[Literal["condition"], Literal["service_healthy", "service_completed_successfully"]]] = {}
    healthcheck: Healthcheck | None = None
    ports: list[str] = []
    profiles: list[str] = []
    volumes: list[str] = []


def _services() -> dict[str, Service]:
    document = yaml.safe_load((_DEPLOY / "compose.yaml").read_text())
    assert set(document) - {"x-teamfit", "x-worker"} == {"name", "services", "volumes"}
    return {name: Service(**service) for name, service in document["services"].items()}


def _ours() -> dict[str, Service]:
    return {name: service for name, service in _services().items() if service.image == "teamfit"}


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Read a command line as `teamfit` would, without running it; return what it was given.

    Raises:
        click.UsageError: there is no such command, option or argument.
    """
    command: Any = typer.main.get_command(app)
    context = click.Context(command, info_name="teamfit")
    rest = list(arguments)
    while hasattr(command, "resolve_command"):
        _, command, rest = command.resolve_command(context, rest)
    parsed: dict[str, Any] = command.make_context("teamfit", rest, parent=context).params
    return parsed


def _unit(name: str) -> dict[str, list[str]]:
    """The settings of a systemd unit; some may stand there several times."""
    settings: dict[str, list[str]] = {}
    for line in (_DEPLOY / "systemd" / name).read_text().splitlines():
        if re.match(r"[A-Za-z]+=", line):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def _seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_each_service_runs_a_command_that_exists() -> None:
    """The API, the migration, and one worker of each stage, under the stage's own name."""
    for name, service in _ours().items():
        parsed = parse(service.command) if name != "operator" else {}
        assert service.command[0] in {"api", "migrate", "worker", "--help"}
        if service.command[0] == "worker":
            assert parsed["stages"] == [name]
    assert set(_ours()) == {"api", "migrate", "operator", ALL, *_STAGES}


def test_services_wait_for_what_they_need_and_say_when_they_work() -> None:
    """Nothing starts before the schema is there; a worker is healthy once its ready file is; hardened one and all."""
    services = _services()
    declared = set(yaml.safe_load((_DEPLOY / "compose.yaml").read_text())["volumes"])
    for name, service in services.items():
        for other, how in service.depends_on.items():
            healthy = services[other].healthcheck is not None
            assert how["condition"] == ("service_healthy" if healthy else "service_completed_successfully")
        for source in (volume.partition(":")[0] for volume in service.volumes):
            assert source in declared or (_DEPLOY / source).is_file()
        assert service.mem_limit or service.shm_size, "each is bounded; Postgres has shared memory for parallel queries"
        if (check := service.healthcheck) is not None:
            assert _seconds(check.timeout) < _seconds(check.interval)
            assert _seconds(check.start_period) >= 30 or name in {"valkey", "postgres"}
    for name, service in _ours().items():
        assert service.read_only
        assert service.cap_drop == ["ALL"]
        assert service.security_opt == ["no-new-privileges:true"]
        assert service.env_file == "teamfit.env", "which .gitignore leaves out"
        assert service.build is not None
        assert (_DEPLOY / service.build.context / service.build.dockerfile).samefile(_DEPLOY / "Containerfile")
        assert _seconds(service.stop_grace_period) > RedisSettings().drain.total_seconds() + LONGEST_TRY_S + 5
        assert ("migrate" in service.depends_on) == (name != "migrate")
        if name in _STAGES:
            folder = service.tmpfs[0].partition(":")[0]
            assert service.healthcheck is not None
            assert service.healthcheck.test[-1] == f"{folder}/{service.command[-1]}"
            assert f"WORKDIR {folder}" in (_DEPLOY / "Containerfile").read_text()
            # Without a way in, the container's network would have no metrics; out of it, nobody has one.
            assert service.environment["TEAMFIT_WORKER_HOST"] == "0.0.0.0"  # noqa: S104 - the point of it
            assert not service.ports


def test_the_broker_keeps_what_it_has() -> None:
    """In an append-only file before it confirms, and never evicting."""
    command = " ".join(_services()["valkey"].command)
    assert "--appendonly yes --appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command


_SECRETS = {
    "api": {"DATABASE_PASSWORD", "BROKER_PASSWORD_API", "TEAMFIT_SIGNING_KEY"},
    "operator": {"DATABASE_PASSWORD", "BROKER_PASSWORD_OPERATOR"},
    "migrate": {"MIGRATE_PASSWORD"},
    **{stage: {"DATABASE_PASSWORD", f"BROKER_PASSWORD_{stage.upper()}"} for stage in {*_STAGES, ALL}},
}
for _name in ("generation", ALL):
    _SECRETS[_name] |= {"OPENAI_API_KEY"}


def test_each_process_gets_only_the_secrets_that_it_needs() -> None:
    """No worker can sign a token, and only generation has the LLM's key; the shared file of settings has no secret."""
    for name, service in _ours().items():
        assert set(re.findall(r"\$\{(\w+)", " ".join(service.environment.values()))) == _SECRETS[name], name
        user = {"migrate": "teamfit_migrate"}.get(name, "teamfit_app")
        assert f"://{user}:" in service.environment["DATABASE_URL"]
        assert name == "migrate" or f"://{name}:" in service.environment["BROKER_URL"]
    shared = (_DEPLOY / "teamfit.env.example").read_text()
    assert not re.search(r"KEY|PASSWORD|://", shared.replace("OPENAI_BASE_URL", ""))
    for name in ("teamfit-api.service", "teamfit-worker@.service", "teamfit-verify.service"):
        own = {"teamfit-api.service": "api", "teamfit-worker@.service": "%i", "teamfit-verify.service": "operator"}[
            name
        ]
        assert _unit(name)["EnvironmentFile"] == ["/etc/teamfit/teamfit.env", f"/etc/teamfit/{own}.env"]


def test_secrets_are_made_for_all_that_asks_for_them() -> None:
    """`secrets.sh` prints every variable of the compose files; no two passwords are the same, digests are left open."""
    files = (_DEPLOY / "compose.yaml", _DEPLOY / "observe.yaml")
    asked = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    printed = subprocess.run(
        ["/bin/sh", _DEPLOY / "secrets.sh"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    ).stdout
    made = dict(line.split("=", 1) for line in printed.splitlines())
    assert set(made) == asked
    passwords = [
        value for name, value in made.items() if name.endswith(("PASSWORD", "SIGNING_KEY")) or "PASSWORD_" in name
    ]
    assert len(set(passwords)) == len(passwords)
    assert all(len(password) >= 32 for password in passwords)


def test_images_are_named_by_digest() -> None:
    """No tag decides what runs: images come by a digest, which has to be filled in, or are built here from such."""
    for service in _services().values():
        assert service.image == "teamfit" or re.search(r"^[\w/]+@\$\{\w+_DIGEST:\?", service.image), service.image
    for line in (_DEPLOY / "Containerfile").read_text().splitlines():
        if line.startswith("FROM "):
            assert line.split()[1].endswith("@${PYTHON_DIGEST}")


def test_servers_ask_for_a_password() -> None:
    """The broker's default user is off, and the processes' role of the database is not its superuser."""
    services = _services()
    assert "--aclfile" in " ".join(services["valkey"].command)
    assert "echo 'user default off'" in (_DEPLOY / "valkey" / "users.sh").read_text()
    roles = (_DEPLOY / "postgres" / "roles.sql").read_text()
    assert roles.count("NOSUPERUSER") == roles.count("CREATE ROLE") == 2
    assert "POSTGRES_PASSWORD" in services["postgres"].environment


def test_the_brokers_users_are_allowed_what_the_transport_sends() -> None:
    """Each command in the users' file is one of the transport's, and each of the transport's is in it."""
    text = (_DEPLOY / "valkey" / "users.sh").read_text()
    assert set(re.findall(r"\+([a-z|]+)\b", text)) == {*WORKER, "ping"}


def test_every_variable_is_a_setting() -> None:
    """In the containers' environment, the example file and the units' files."""
    for service in _ours().values():
        assert set(service.environment) <= _SETTINGS
    example = (_DEPLOY / "teamfit.env.example").read_text()
    assert set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE)) <= _SETTINGS
    for file in _DEPLOY.rglob("*"):
        if file.is_file():
            assert set(re.findall(r"\bTEAMFIT_[A-Z_]+", file.read_text())) <= _SETTINGS, file


def test_the_image_holds_what_the_project_is_made_of() -> None:
    """Each package, and each file that is needed to build them, with the pinned versions."""
    lines = (_DEPLOY / "Containerfile").read_text().splitlines()
    copied = {
        word for line in lines if line.startswith("COPY ") and "--from" not in line for word in line.split()[1:-1]
    }
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    made_of = {project["project"]["readme"], *wheel["packages"], *wheel["force-include"]}
    assert copied == {"pyproject.toml", "constraints.txt", *made_of}
    rules = (_DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == copied
    assert rules.index("infra/deploy") > rules.index("!infra"), "the settings' file lies there: no secret gets into it"
    assert 'ENTRYPOINT ["teamfit"]' in lines
    assert any("--constraints constraints.txt" in line for line in lines)


@pytest.mark.parametrize(
    ("unit", "instance", "said"),
    [
        ("teamfit-worker@.service", "generation", ["worker", "generation", "--ready-file", "ready"]),
        ("teamfit-worker@.service", "all", ["worker", "all", "--ready-file", "ready"]),
        ("teamfit-worker@.service", "generation-2", ["worker", "generation", "--ready-file", "ready"]),
        ("teamfit-api.service", "", ["api", "--host", "127.0.0.1", "--port", "8000"]),
        ("teamfit-verify.service", "", ["verify"]),
    ],
)
def test_units_run_commands_that_exist(unit: str, instance: str, said: list[str]) -> None:
    """What systemd makes of the line, and a shell of that, is a command; a worker's instance may have a number."""
    (line,) = _unit(unit)["ExecStart"]
    words = shlex.split(line.replace("%%", "\0").replace("%i", instance).replace("\0", "%").replace("$$", "$"))
    if words[0] == "/bin/sh":
        words[2] = words[2].replace("exec /opt", "printf '%s\\n' /opt")
        words = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert words == ["/opt/teamfit/bin/teamfit", *said]
    assert parse(words[1:]) is not None


def test_units_let_workers_finish_and_hold_them_in_bounds() -> None:
    """A stop may last longer than the drain; what runs has no rights, bounded memory, and is started again."""
    for name in ("teamfit-worker@.service", "teamfit-api.service", "teamfit-verify.service"):
        unit = _unit(name)
        for setting in ("NoNewPrivileges", "ProtectHome", "PrivateTmp"):
            assert unit[setting] == ["yes"], (name, setting)
        assert unit["ProtectSystem"] == ["strict"]
        assert unit["MemoryMax"]
        assert unit["User"] == ["teamfit"]
        if name != "teamfit-verify.service":
            assert unit["Restart"] == ["on-failure"]
            tries = LONGEST_TRY_S if "worker" in name else 0
            assert int(unit["TimeoutStopSec"][0]) > RedisSettings().drain.total_seconds() + tries + 5


_ANALYZE = shutil.which("systemd-analyze")


@pytest.mark.skipif(_ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """No setting is unknown or misplaced. The program is looked for where the document installs it: not here."""
    for file in (_DEPLOY / "systemd").iterdir():
        text = file.read_text().replace("/opt/teamfit/bin/teamfit", "/bin/true")
        (tmp_path / file.name.replace("@.", "@quota.")).write_text(text)
    units = sorted(str(file) for file in tmp_path.iterdir())
    command = [str(_ANALYZE), "verify", "--man=no", *units]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, [line for line in result.stderr.splitlines() if str(tmp_path) in line]) == (0, [])


def _rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((_DEPLOY / "prometheus" / "alerts.yml").read_text())
    (group,) = document["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def _metrics() -> set[str]:
    """Every name that /metrics may show, of the pipeline's own."""
    return {
        name
        for family in REGISTRY.collect()
        for name in {family.name, f"{family.name}_total"}
        if name.startswith("teamfit_") and (name.endswith("_total") == (family.type == "counter"))
    }


def test_alerts_speak_of_metrics_and_pages_that_exist() -> None:
    """Each expression's metrics are ours, and each runbook is a section of a document."""
    for rule in _rules():
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule
        assert set(re.findall(r"teamfit_\w+", rule["expr"])) <= _metrics(), rule["alert"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        headings = re.findall(r"^#+ (.*)$", (_ROOT / page).read_text(), re.MULTILINE)
        assert anchor in {heading.lower().replace(" ", "-") for heading in headings}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}


def test_prometheus_finds_the_services_at_their_ports() -> None:
    """Each worker at the port that compose gives it, and the API."""
    (scrape,) = yaml.safe_load((_DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    found = {(name, str(one["port"])) for one in scrape["dns_sd_configs"] for name in one["names"]}
    services = _ours()
    expected = {(name, services[name].environment["TEAMFIT_WORKER_PORT"]) for name in {*_STAGES, ALL}}
    assert found == expected | {("api", services["api"].command[-1])}


def test_every_metric_is_in_the_operators_page() -> None:
    """With its name in full: what a dashboard shows can be looked up."""
    page = (_ROOT / "docs" / "operating.md").read_text()
    assert {name for name in _metrics() if name not in page} == set()


def _documented_commands() -> Iterator[tuple[str, str]]:
    for page in sorted((_ROOT / "docs").glob("*.md")):
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            for line in re.findall(r"^(?:\$ )?(?:\S+/)?teamfit ([a-z].*)$", block, re.MULTILINE):
                yield page.name, line


@pytest.mark.parametrize(("page", "line"), list(_documented_commands()))
def test_documented_commands_exist(page: str, line: str) -> None:
    """Each line that a reader may paste is one that `teamfit` takes; words in capitals stand for something."""
    words = shlex.split(line, comments=True)
    stand_ins = {"PLAN": "9ef002e9-a54f-49cb-9665-b5161156e1d7", "JOB": "9ef002e9-a54f-49cb-9665-b5161156e1d7"}
    stand_ins["ENDPOINT"] = stand_ins["JOB"]
    assert parse([stand_ins.get(word, word) for word in words]) is not None
