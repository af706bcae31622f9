"""What the README shows works as pasted."""

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.local.environment import environment
from infra.local.organizations import ACME
from infra.local.stack import Stack
from tests.acceptance.customer import Customer, assert_three_activities

_README = (Path(__file__).parents[2] / "README.md").read_text()


async def test_the_client_example_becomes_three_activities(stack: Stack, customer: Customer) -> None:
    """The Python example, run as a script of its own with nothing but BROKER_URL, prints a job that completes."""
    (example,) = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", example], env=environment(stack.settings), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert_three_activities(await customer.ended_job(result.stdout.strip(), organization_id=ACME.id))


async def test_the_redis_cli_line_becomes_three_activities(customer: Customer) -> None:
    """The words of the redis-cli line, sent as redis-cli would send them, make a job that completes."""
    (line,) = re.findall(r"^redis-cli .*$", _README, re.MULTILINE)
    words = shlex.split(line)
    words = words[words.index("XADD") + 1 :]
    assert words[1] == "*"
    await customer.xadd(*words[2:], topic=words[0])
    job_id = words[words.index("key") + 1]
    assert_three_activities(await customer.ended_job(job_id, organization_id=ACME.id))


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
async def test_the_deploying_page_walks_to_three_activities(stack: Stack, tmp_path: Path) -> None:
    """Its block, run as pasted, makes an organization and a team, sends a request and reads its activities."""
    page = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text()
    (block,) = re.findall(r"From an empty database to three activities:\n```sh\n(.*?)```", page, re.DOTALL)
    block = block.replace("http://127.0.0.1:8000", stack.api_url)
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        *("bash", "-ec", f'teamfit() {{ {sys.executable} -m infra.cli "$@"; }}\n{block}'),
        cwd=tmp_path,
        env={**environment(stack.settings), "PYTHONPATH": root},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    assert_three_activities(json.loads(printed.decode().splitlines()[-1]))
