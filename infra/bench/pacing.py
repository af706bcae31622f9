"""`python -m infra.bench.pacing` measures how close the fleet runs to a strict provider's limits.

And how often it hears 429. The offline LLM counts as a strict provider does, over any minute. More jobs are offered
than it takes meanwhile.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, SecretStr
from rich.console import Console

from infra.local.organizations import BIRCH
from infra.local.processes import HOST, free_port
from infra.local.stack import WORKERS, Stack
from infra.settings import Settings
from producers.client import JobRequests, Request

_SETTLE_S = 30.0


class PacingReport(BaseModel):
    """The result of a run.

    Attributes:
        used: of the limit that binds, after the first half minute.
        refused: answers 429, of all calls.
    """

    seconds: float
    answered: int
    tokens: int
    used: float
    refused: float


class _Counts(BaseModel):
    received: int
    answered: int
    prompt_tokens: int
    completion_tokens: int
    beyond_limits: int

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


def main() -> int:
    """Run the benchmark with the command line's options."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.pacing", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2000, help="jobs to offer (default 2000)")
    parser.add_argument("--seconds", type=float, default=180.0, help="how long to measure (default 180)")
    parser.add_argument("--requests", type=int, default=600, help="requests by the minute (default 600)")
    parser.add_argument("--tokens", type=int, default=60_000, help="tokens by the minute (default 60,000)")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds that an answer takes (default 1)")
    parser.add_argument("--learn", action="store_true", help="have the fleet learn the limits from the answers")
    options = parser.parse_args()
    port = free_port()
    given = (
        {}
        if options.learn
        else {
            "llm_requests_per_minute": options.requests,
            "llm_tokens_per_minute": options.tokens,
        }
    )
    settings = Settings(openai_base_url=f"http://{HOST}:{port}/v1", openai_api_key=SecretStr("offline"), **given)
    progress = Console(stderr=True)
    with (
        _provider(port, options),
        Stack(settings, parts=(*WORKERS, "generation-2"), report=lambda step: progress.print(f"{step} …")) as stack,
    ):
        report = asyncio.run(_measure(stack, port, options))
    print(report.model_dump_json(indent=2))
    return 0


@contextmanager
def _provider(port: int, options: argparse.Namespace) -> Iterator[None]:
    command = [sys.executable, "-m", "infra.local.llm", "--port", str(port), "--latency", str(options.latency)]
    command += ["--requests", str(options.requests), "--tokens", str(options.tokens)]
    with subprocess.Popen(command) as provider:  # noqa: S603 - our own module
        try:
            yield
        finally:
            provider.terminate()


async def _measure(stack: Stack, port: int, options: argparse.Namespace) -> PacingReport:
    async with JobRequests.connect(stack.settings.broker_url, source="bench") as requests:
        await requests.submit_many(
            Request(organization_id=BIRCH.id, team_id=BIRCH.team.id, requirements=f"An hour outdoors, variant {index}")
            for index in range(options.jobs)
        )
    await asyncio.sleep(_SETTLE_S)
    before, began = await _counts(port), time.monotonic()
    await asyncio.sleep(options.seconds)
    stack.check()
    after, seconds = await _counts(port), time.monotonic() - began
    minutes = seconds / 60
    requests_used = (after.answered - before.answered) / (options.requests * minutes)
    tokens_used = (after.tokens - before.tokens) / (options.tokens * minutes)
    return PacingReport(
        seconds=round(seconds, 1),
        answered=after.answered,
        tokens=after.tokens,
        used=round(max(requests_used, tokens_used), 4),
        refused=round(after.beyond_limits / max(after.received, 1), 4),
    )


async def _counts(port: int) -> _Counts:
    def read() -> _Counts:
        with urllib.request.urlopen(f"http://{HOST}:{port}/control", timeout=10) as answer:
            return _Counts.model_validate(json.load(answer)["calls"])

    return await asyncio.to_thread(read)


if __name__ == "__main__":
    sys.exit(main())
