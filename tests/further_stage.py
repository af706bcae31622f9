"""A copy of the project with one stage more, between quota and what follows it, made as CONTRIBUTING tells.

The stage's own folder, and these lines in other files, are all that it takes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[1]

STAGE: Final = "screening"
TOPIC: Final = "job-screening"
CODE: Final = "screening_refused"
REFUSED: Final = "explosives"
"""A wish with this word is refused."""

# File, the line after which it stands, and the line.
_LINES: Final = (
    ("streams/jobs/topics.py", "JOB_REQUESTS: Final =", f'JOB_SCREENING: Final = "{TOPIC}"'),
    (
        "streams/jobs/topics.py",
        "TOPICS: Final",
        '    JOB_SCREENING: Topic("Requests that quota admitted.", (JobAccepted,)),',
    ),
    (
        "streams/jobs/stages.py",
        "from streams.jobs.topics import",
        "from streams.jobs.topics import JOB_SCREENING",
    ),
    (
        "streams/jobs/stages.py",
        "    ConsumerGroup(QUOTA,",
        f'    ConsumerGroup("{STAGE}", "consumers.{STAGE}.worker", (JOB_SCREENING,), run=JobAccepted),',
    ),
    ("streams/jobs/outcomes.py", "ERROR_CODES: Final", f'    "{CODE}": "The wish is one that we do not answer.",'),
)
_FOLDER: Final = {
    "__init__.py": f"""
from streams.jobs.stages import app_on_demand

__getattr__ = app_on_demand("consumers.{STAGE}.worker")
""",
    "worker.py": f"""
from consumers.{STAGE}.handlers import Screening
from streams.jobs.dispatch import Dispatcher, GivenBack
from streams.jobs.events import JobAccepted
from streams.jobs.faust_app import create_app
from streams.jobs.stages import RUN_TOPICS
from streams.jobs.topics import expecting


def create(settings, database=None):
    app = create_app("{STAGE}", settings, database)
    screening = Screening(app.database, app.database.clock, settings)
    dispatcher = Dispatcher(app.database, app.publisher, window=settings.dispatch_window)
    stage = app.stage(
        expecting(JobAccepted),
        screening.handle,
        dispatcher.after(screening.give_up),
        retries=GivenBack(app.database, app.database.clock, dispatcher),
    )
    for topic in RUN_TOPICS["{STAGE}"]:
        app.feed(topic, stage, concurrency=settings.batch_size)
    app.close_before_producer(dispatcher.close)
    return app
""",
    "handlers.py": f"""
from datetime import timedelta

from infra.errors import Permanent
from streams.jobs.outcomes import fail_run
from streams.jobs.ownership import Ownership
from streams.jobs.stages import topic_after
from streams.jobs.topics import record


class Screening:
    def __init__(self, database, clock, settings):
        self._database, self._clock = database, clock
        self._ownership = Ownership(database, timeout=timedelta(seconds=settings.stage_timeout_s))

    async def handle(self, event, _delivery):
        evidence = await self._ownership.check(event)
        if evidence.outcome not in (None, "failed"):
            return ()
        if "{REFUSED}" in event.data.requirements:
            raise Permanent("{CODE}", "the wish names what it may not")
        return (record(topic_after("{STAGE}"), event),)

    async def give_up(self, event, _delivery, error):
        if not await self._ownership.allows(event):
            return ()
        return await fail_run(self._database, self._clock, event, error)
""",
}


def with_further_stage(folder: Path) -> Path:
    """Return the copy, in a folder that is empty yet."""
    for name in ("streams", "consumers", "producers", "infra"):
        shutil.copytree(_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, after, line in _LINES:
        text = (folder / name).read_text()
        place = text.index("\n", text.index(f"\n{after}") + 1)
        (folder / name).write_text(f"{text[:place]}\n{line}{text[place:]}")
    stage = folder / "consumers" / STAGE
    stage.mkdir()
    for name, text in _FOLDER.items():
        (stage / name).write_text(text)
    return folder


def run_with(copy: Path, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run Python there: what it imports of the project is the copy's, the tests excepted."""
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": os.pathsep.join((str(copy), str(_ROOT))), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=400)
