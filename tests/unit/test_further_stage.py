"""What a stage after quota takes: its folder and three files; every other place follows from them."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.jobs.stages import GENERATION, QUOTA, RELEASED_TO, RUN_TOPICS
from streams.jobs.topics import JOB_REQUESTS
from tests.further_stage import CODE, STAGE, TOPIC, run_with, with_further_stage

_ROOT = Path(__file__).parents[2]

_ASK = """
import json
from itertools import pairwise
from consumers.generation.worker import _TOPICS as read_by_generation
from consumers.quota.admission import _ADMITTED
from infra.bench import steps
from infra.bench.otlp_collector import Seen
from infra.cli.options import _stages as options
from infra.cli.service import _stages as workers
from infra.local.stack import WORKERS
from infra.operations.controls import BY_ORGANIZATION, PAUSABLE
from producers.replay.effects import follows_of
from streams.jobs.dispatch import _ONWARD
from streams.jobs.outcomes import ERROR_CODES
from streams.jobs.stages import ADMITS, CONSUMER_GROUPS, RELEASED_TO, RUN_ENTRIES, RUN_TOPICS

def span(at, service, name):
    return Seen(f"teamfit-{service}", name, 0, "t", str(at), "", (), {}, "", at, at + 1)

spans = [span(at, service, name) for at, (service, name) in enumerate([
    ("api", "POST /api"), ("api", "send job-requests"), ("quota", "process job-requests"),
    *(step for stage, after in pairwise(RUN_TOPICS) for step in [
        (stage, "send " + RUN_TOPICS[after][0]), (after, "process " + RUN_TOPICS[after][0])
    ]),
    ("generation", "chat"), ("generation", "send job-events"), ("projection", "batch Projection.project"),
])]
print(json.dumps({
    "run": RUN_TOPICS,
    "admits": [ADMITS, _ADMITTED],
    "released": RELEASED_TO,
    "reads": read_by_generation,
    "onward": _ONWARD,
    "entries": RUN_ENTRIES,
    "groups": CONSUMER_GROUPS["job-screening"],
    "follows": [[one.topic, one.records] for one in follows_of(3)],
    "by_organization": BY_ORGANIZATION,
    "everywhere": [options(), workers(), WORKERS, PAUSABLE],
    "codes": sorted(ERROR_CODES),
    "steps": [one.name for one in steps._cut(spans, ())],
}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the places say where the stage was added."""
    done = run_with(with_further_stage(tmp_path_factory.mktemp("tree")), "-c", _ASK)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_passes_it_after_quota(told: Any) -> None:
    """Quota sends what it admits there, and generation reads what it has read before."""
    assert list(told["run"]) == [QUOTA, STAGE, *RELEASED_TO]
    assert told["admits"] == [QUOTA, TOPIC]
    assert told["released"] == [STAGE, *RELEASED_TO]
    assert told["groups"] == [STAGE]
    assert told["reads"] == list(RUN_TOPICS[GENERATION])


def test_a_retry_comes_back_to_its_own_stage(told: Any) -> None:
    """When it is due, it waits for its turn like any other, and is not sent to the stage before."""
    assert told["onward"] == {TOPIC: TOPIC} | {
        topic: RUN_TOPICS[stage][0] for stage in RELEASED_TO for topic in RUN_TOPICS[stage]
    }


def test_who_lists_stages_lists_it(told: Any) -> None:
    """Workers, options of commands, the local stack, and what may be paused, for all and for one organization."""
    assert told["by_organization"] == [QUOTA, STAGE, *RELEASED_TO]
    assert all(STAGE in one for one in told["everywhere"])
    assert CODE in told["codes"]


def test_a_replay_says_what_follows_there(told: Any) -> None:
    """Its failed events start a run, and each rerun passes its topic."""
    assert [TOPIC, STAGE, "teamfit.job.accepted.v1"] in told["entries"]
    onward = [[RUN_TOPICS[stage][0], 3] for stage in RELEASED_TO]
    assert told["follows"] == [[TOPIC, 3], *onward, ["job-events", 6]]


def test_a_jobs_steps_are_measured_there_too(told: Any) -> None:
    """The way there and the time in it are steps of their own, after quota's."""
    assert told["steps"][2:6] == [
        "quota decides and releases",
        f"broker, to {STAGE}",
        f"{STAGE} decides and releases",
        f"broker, to {RELEASED_TO[0]}",
    ]


# Where a stage that a run passes, or the topic that brings a run there, is meant by its own name, and why.
_BY_NAME = {
    "streams/jobs/stages.py": "the registry",
    "streams/jobs/topics.py": "the topics",
    "streams/jobs/watch.py": "quota's runs that wait for an organization stand in the schedule",
    "streams/jobs/invalid_requests.sql": "quota reads the requests",
    "producers/reconcile/remedies.py": "quota repeats what it decided",
}
_NAMES = {GENERATION, "QUOTA", "GENERATION"} | {
    word for topics in RUN_TOPICS.values() for topic in topics for word in (topic, topic.replace("-", "_").upper())
} - {JOB_REQUESTS, "JOB_REQUESTS"}


def test_no_stage_is_meant_by_its_name_elsewhere() -> None:
    """Whoever lists by name those that a run passes, leaves the next one out.

    Not looked at: a stage's own folder, migrations, and what measures one stage. "quota" is more than a stage, so in
    Python its constant counts.
    """
    found = {}
    files = (one for package in ("streams", "producers", "infra") for one in (_ROOT / package).rglob("*.*"))
    for path in files:
        name = str(path.relative_to(_ROOT))
        if path.suffix in {".py", ".sql"} and not name.startswith(("infra/migrations/", "infra/bench/")):
            meant = _NAMES | ({QUOTA} if path.suffix == ".sql" else set())
            if words := set(_words(path)) & meant:
                found[name] = words
    assert set(found) == set(_BY_NAME), {name: words for name, words in found.items() if name not in _BY_NAME}


def _words(path: Path) -> Iterator[str]:
    text = path.read_text()
    if path.suffix == ".sql":
        yield from re.findall(r"'([^']*)'", re.sub(r"--.*", "", text))
        return
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Constant(value=str(value)) | ast.Name(id=value) | ast.alias(name=value):
                yield value
