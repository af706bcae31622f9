"""A real Prometheus scrapes a running pipeline, and answers what dashboards and alerts ask."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from infra.local.processes import free_port
from infra.local.stack import ALL, API, Stack
from infra.settings import Settings
from tests.acceptance.customer import Customer
from tests.acceptance.running import running
from tests.waiting import wait_for

_DEPLOY = Path(__file__).parents[2] / "infra" / "deploy"
_PROGRAM = shutil.which("prometheus")
# What Prometheus itself says of a target.
_ITS_OWN = {"up"}
_SELECTOR = re.compile(r"\b(?:teamfit_\w+|up\b)(?:\{[^}]*\})?")
# It has a series for each endpoint that a job was passed on from, and this pipeline has one endpoint.
_NONE_HERE = {"teamfit_llm_passed_on_total"}


def _expressions() -> list[str]:
    """Every panel's and every alert's, with an interval in the place of Grafana's."""
    boards = [json.loads(file.read_text()) for file in sorted((_DEPLOY / "grafana").glob("*.json"))]
    panels = [target["expr"] for board in boards for panel in board["panels"] for target in panel["targets"]]
    (group,) = yaml.safe_load((_DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    asked = panels + [rule["expr"] for rule in group["rules"]]
    assert len(panels) > 20
    return [one.replace("$__rate_interval", "1m") for one in asked]


@pytest.fixture
async def prometheus(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A Prometheus that scrapes a pipeline in two processes, in which a job has run."""
    if _PROGRAM is None:
        pytest.skip("no prometheus on this machine; Debian's package `prometheus` has it")
    worker, port = free_port(), free_port()
    stack = Stack(
        Settings(_env_file=None, generation_concurrency=5),
        llm_latency_s=0.05,
        durable=False,
        parts=(ALL, API),
        variables=lambda part: {"TEAMFIT_WORKER_PORT": str(worker)} if part == ALL else {},
    )
    with running(stack):
        targets = [f"127.0.0.1:{worker}", stack.api_url.removeprefix("http://")]
        scrape = {"job_name": "teamfit", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [scrape]}))
        command = [_PROGRAM, "--config.file=prometheus.yml", "--storage.tsdb.path=data"]
        with subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as process:
            try:
                async with aiohttp.ClientSession(stack.api_url) as http:
                    # So that there is somebody to blame, and a gate.
                    control = f"{str(stack.settings.openai_base_url).removesuffix('/v1')}/control"
                    order = {"mode": "429", "count": 1, "retry_after": 0.1}
                    async with http.put(control, json=order) as answer:
                        assert answer.status == 200
                    await Customer(stack, http).gets_three_activities()
                async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
                    yield http
            finally:
                process.kill()


async def _ask(http: aiohttp.ClientSession, path: str, **parameters: str) -> Any:
    try:
        async with http.get(f"/api/v1/{path}", params=parameters) as answer:
            return await answer.json()
    except aiohttp.ClientError as error:
        raise AssertionError(str(error)) from error


async def test_every_expression_is_answered_and_names_what_there_is(prometheus: aiohttp.ClientSession) -> None:
    """No panel and no alert asks for series that no process tells, or in words that Prometheus does not take."""

    async def scraped() -> bool:
        up = (await _ask(prometheus, "query", query="up"))["data"]["result"]
        # Of both, and twice at least: a rate needs two.
        seen = (await _ask(prometheus, "query", query="min(count_over_time(up[5m]))"))["data"]["result"]
        return [one["value"][1] for one in up] == ["1", "1"] and float(seen[0]["value"][1]) > 1

    await wait_for(scraped, deadline_s=60, what="both processes to be scraped")
    told = set((await _ask(prometheus, "metadata"))["data"]) | _ITS_OWN
    answers = {one: await _ask(prometheus, "query", query=one) for one in _expressions()}
    assert {one: answer for one, answer in answers.items() if answer["status"] != "success"} == {}
    names = {name for one in answers for name in re.findall(r"\b(?:teamfit_\w+|up\b)", one)}
    bases = {name: re.sub(r"_(bucket|sum|count|total)$", "", name) for name in names}
    assert {name for name, base in bases.items() if not {name, base} & told} == set()
    # An alert's comparison answers nothing while all is well; what it compares is there from the first scrape on.
    selectors = {one for expression in answers for one in _SELECTOR.findall(expression)} - _NONE_HERE
    found = {one: (await _ask(prometheus, "query", query=one))["data"]["result"] for one in selectors}
    assert {one for one, series in found.items() if not series} == set()
