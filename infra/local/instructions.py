"""A newcomer gets addresses, tokens, and commands to paste."""

import json
import shlex
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

from infra.local.environment import variables
from infra.local.organizations import ACME, BIRCH
from infra.local.stack import TRACES, Stack
from infra.settings import Settings
from streams.jobs.events import JobId
from streams.jobs.facts import job_requested
from streams.jobs.topics import JOB_REQUESTS

_ADDRESSES: Final = ("database_url", "broker_url", "signing_key", "openai_base_url", "openai_api_key")
_ALLOWED: Final = ("webhook_allow_private", "webhook_allow_http")


def instructions(stack: Stack, console: str) -> str:
    """Return the text that `teamfit up` prints once the stack runs. `console` is the console's address."""
    acme, birch = stack.token(ACME.id), stack.token(BIRCH.id)
    body = json.dumps(
        {"organization_id": ACME.id, "team_id": ACME.team.id, "requirements": "An hour outdoors for 9 people"}
    )
    llm = stack.settings.openai_base_url or "OpenAI"
    return f"""
API         {stack.api_url}  (its documentation: {stack.api_url}/docs)
Console     {console}  (this link signs in once; {_program()} console prints another)
Front end   {stack.web_url}  (an example: its code is in infra/local/web)
{_traces(stack)}Broker      {stack.settings.broker_url}
Database    {stack.settings.database_url}
LLM         {llm}{"  (offline: it composes activities without a model)" if stack.offline else ""}
Logs        {stack.folder}

Tokens, valid for a day:
Acme        {acme}
Birch       {birch}

Request activities over HTTP:
curl -sS {stack.api_url}/api/activities/generate-custom -H 'Authorization: Bearer {acme}' \
-H 'Content-Type: application/json' -d '{body}'

{_by_entry(stack, acme)}
{_other_terminal(stack)}
Ctrl-C stops everything.
"""


def _traces(stack: Stack) -> str:
    if not stack.has(TRACES):
        return ""
    return f"Traces      {stack.url_of(TRACES)}  (each job's, a second after it happened)\n"


def _other_terminal(stack: Stack) -> str:
    """Return lines that let every command work in another terminal. What its user has set is not repeated."""
    own = sorted(Settings.variable(name) for name in stack.given & set(_ADDRESSES))
    made = {
        name: value for name, value in variables(stack.settings, (*_ADDRESSES, *_ALLOWED)).items() if name not in own
    }
    exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in made.items())
    more = f"\n# … and {', '.join(own)}, as you have set it here" if own else ""
    teamfit = _program()
    return f"""Commands in another terminal need this first:
export {exports}{more}

{teamfit} lag
{teamfit} failed list
{teamfit} verify
{teamfit} token --organization {ACME.id} --scope operator    # for {stack.api_url}/api/ops/…
"""


def _program() -> str:
    """Return how another terminal calls the command: by its path where none of its name would be found."""
    beside = Path(sys.executable).with_name("teamfit")
    return "teamfit" if shutil.which("teamfit") or not beside.exists() else shlex.quote(str(beside))


def _by_entry(stack: Stack, token: str) -> str:
    if stack.settings.broker_url.startswith("kafka:"):
        return "On Kafka, requests come over HTTP or by the Python client; XADD is for Redis.\n"
    event = job_requested(
        job_id=JobId(uuid4()),
        organization_id=ACME.id,
        team_id=ACME.team.id,
        requirements="An hour outdoors for 9 people",
        at=datetime.now(UTC),
        source="redis-cli",
    )
    return f"""Request activities by a plain entry in the stream:
{_redis_cli(stack)} XADD {JOB_REQUESTS} '*' key {event.subject} event '{event.encode().decode()}'

See what became of that entry:
curl -sS {stack.api_url}/api/jobs/{event.subject} -H 'Authorization: Bearer {token}'
"""


def _redis_cli(stack: Stack) -> str:
    address = urlsplit(stack.broker_address)
    if address.scheme == "redis" and not address.password:
        return f"redis-cli -h {address.hostname} -p {address.port or 6379} -n {address.path.strip('/') or 0}"
    return f"redis-cli -u '{stack.broker_address}'"
