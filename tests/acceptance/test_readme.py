"""What the README shows works as pasted."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

from infra.local.environment import environment
from infra.local.organizations import ACME
from infra.local.stack import Stack
from infra.settings import Settings
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


def test_the_table_of_settings_is_complete() -> None:
    """Every setting is in the README with its description, so neither can change without the other."""
    for name, field in Settings.model_fields.items():
        (row,) = re.findall(rf"^\| `{Settings.variable(name)}` \|.*$", _README, re.MULTILINE)
        assert f"{field.description}" in row
