"""A pipeline with a further stage, run by `test_further_stage.py` where the stage was added: each face knows it.

python -m tests.acceptance.a_longer_pipeline
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping

import aiohttp

from infra.local.environment import environment
from infra.local.organizations import BIRCH
from infra.local.stack import LLM, Stack
from infra.settings import Settings
from tests.acceptance.customer import WISH, Customer, assert_three_activities
from tests.acceptance.running import running
from tests.further_stage import CODE, REFUSED, STAGE, TOPIC
from tests.verified import assert_consistent
from tests.waiting import wait_for


def teamfit(stack: Stack, *arguments: str) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", *arguments],
        env=environment(stack.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Scene:
    """A customer, and operators' commands."""

    def __init__(self, stack: Stack, http: aiohttp.ClientSession) -> None:
        self.stack = stack
        self.customer = Customer(stack, http)

    async def ask(self, requirements: str = WISH) -> str:
        """Ask for activities; return the job."""
        status, accepted = await self.customer.post(requirements=requirements)
        assert status == 202, accepted
        return str(accepted["job_id"])

    async def waits(self, job: str, **at: object) -> None:
        """Wait until a job says so of itself."""

        async def there() -> bool:
            told: Mapping[str, object] | None = (await self.customer.job(job))["waiting_for"]
            assert told is not None
            assert {name: told[name] for name in at} == at
            return True

        await wait_for(there, what=f"job {job} to wait: {at}")

    async def do(self, *arguments: str) -> str:
        """Run a command beside what goes on."""
        return await asyncio.to_thread(teamfit, self.stack, *arguments)

    async def completes(self, job: str) -> None:
        """Wait for a job's activities."""
        assert_three_activities(await self.customer.ended_job(job))


async def _passes_and_is_refused(scene: Scene) -> None:
    passed, refused = await scene.ask(), await scene.ask(f"a game with {REFUSED}")
    await scene.completes(passed)
    assert (await scene.customer.ended_job(refused))["error_code"] == CODE
    life = json.loads(await scene.do("job", "show", refused, "--json"))
    assert [one["stage"] for one in life["failed"]] == [STAGE]
    effects = json.loads(await scene.do("replay", "plan", "--stage", STAGE, "--json"))["effects"]
    assert (effects["reruns"], [one["stage"] for one in effects["by_error"]]) == (1, [STAGE])
    assert {"topic": TOPIC, "group": None, "records": 1} in effects["follows"]


async def _comes_back_to_generation(scene: Scene) -> None:
    """A retry of the stage after it goes on there."""
    order = {"mode": "500", "count": 1}
    async with aiohttp.ClientSession(scene.stack.url_of(LLM)) as llm, llm.put("/control", json=order) as answer:
        assert answer.status == 200
    await scene.completes(await scene.ask())


async def _waits_while_it_is_paused(scene: Scene, *whose: str) -> None:
    """For all, or for one organization; cancelled meanwhile, it ends; whoever is killed, the others go on."""
    await scene.do("pause", STAGE, *whose, "--reason", "look", "--yes")
    job, withdrawn = await scene.ask(), await scene.ask()
    for one in (job, withdrawn):
        await scene.waits(one, gate="pause")
    await scene.do("job", "cancel", withdrawn, "--because", "no need", "--yes")
    if not whose:
        await asyncio.to_thread(scene.stack.kill, STAGE)
        await asyncio.to_thread(scene.stack.start, STAGE)
    await scene.do("resume", STAGE, *whose)
    await scene.completes(job)
    assert (await scene.customer.job(withdrawn))["status"] == "cancelled"


async def main() -> None:
    """Live through it."""
    settings = Settings(_env_file=None, retry_base_s=0.2)
    with running(Stack(settings, llm_latency_s=0.2, broker_parameters="lease=2s", durable=False)) as stack:
        async with aiohttp.ClientSession(stack.api_url) as http:
            scene = Scene(stack, http)
            await _passes_and_is_refused(scene)
            await _comes_back_to_generation(scene)
            await _waits_while_it_is_paused(scene)
            await _waits_while_it_is_paused(scene, "--organization", BIRCH.id)
        await assert_consistent(stack.settings.database_url, deadline_s=60)


if __name__ == "__main__":
    asyncio.run(main())
