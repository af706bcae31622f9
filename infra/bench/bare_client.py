"""This runs a bare loop of the `openai` client, to compare the generation stage with.

`python -m infra.bench.bare_client URL --calls N --at-once M` asks the LLM what the generation stage asks it, and reads
the JSON of each answer. It prints the seconds that it took and the CPU milliseconds of each call, as one JSON document.
"""

import argparse
import asyncio
import json
import resource
import time
from typing import Final

import openai
import uvloop

from consumers.generation.dialect import strongest
from consumers.generation.prompt import messages

_WARM_UP: Final = 20


def main() -> None:
    """Make the calls of the command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.bare_client", description=__doc__)
    parser.add_argument("url", help="the endpoint's base URL")
    parser.add_argument("--calls", type=int, required=True, help="how many")
    parser.add_argument("--at-once", type=int, required=True, help="how many of them are in flight")
    options = parser.parse_args()
    print(json.dumps(uvloop.run(_measure(options.url, options.calls, options.at_once))))


async def _measure(url: str, calls: int, at_once: int) -> dict[str, float]:
    client = openai.AsyncOpenAI(base_url=url, api_key="offline", http_client=openai.DefaultAioHttpClient())
    async with client:
        await _call_all(client, _WARM_UP, at_once)
        began, cpu = time.perf_counter(), _cpu_s()
        await _call_all(client, calls, at_once)
        seconds, used = time.perf_counter() - began, _cpu_s() - cpu
    return {"seconds": round(seconds, 2), "cpu_ms_per_call": round(used / calls * 1000, 3)}


async def _call_all(client: openai.AsyncOpenAI, calls: int, at_once: int) -> None:
    left = iter(range(calls))
    dialect = strongest("auto")
    fields = dialect.request(max_tokens=4000)

    async def loop() -> None:
        for number in left:
            answer = await client.chat.completions.create(
                model="gpt-4o-mini",
                messages=messages(dialect, f"A session outdoors for 6 people, variant {number}"),
                **fields,
            )
            json.loads(answer.choices[0].message.content or "")

    async with asyncio.TaskGroup() as loops:
        for _ in range(min(at_once, calls)):
            loops.create_task(loop())


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
