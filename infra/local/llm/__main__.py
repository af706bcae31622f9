"""`python -m infra.local.llm --port N [--latency S]` runs the offline server until it is stopped.

How it is told to misbehave: see `infra/local/llm/misbehaviour.py`, or `--help`.
"""

import argparse
import sys

import uvloop
from aiohttp import web

from infra.local.llm import misbehaviour
from infra.local.llm.limits import Limiter
from infra.local.llm.server import create_app
from infra.local.processes import HOST
from infra.ports import PortTaken, require_free

_NO_LIMIT = 10**9


def main() -> int:
    """Serve until a signal ends it. A port that is taken is a plain message and exit code 2."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.llm",
        description="An OpenAI-compatible server that composes activities offline.",
        epilog=f"{misbehaviour.__doc__}\nModes: {', '.join(misbehaviour.Mode)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--port", type=int, required=True, help="the port on the loopback interface")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds that each answer takes (default 0)")
    parser.add_argument("--requests", type=int, help="answers by the minute at most; 429 beyond (default: no limits)")
    parser.add_argument("--tokens", type=int, help="tokens by the minute at most (default with --requests: no limit)")
    arguments = parser.parse_args()
    try:
        require_free(arguments.port, "--port")
    except PortTaken as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's own message
        return 2
    is_strict = arguments.requests is not None or arguments.tokens is not None
    limiter = Limiter(arguments.requests or _NO_LIMIT, arguments.tokens or _NO_LIMIT) if is_strict else None
    web.run_app(
        create_app(latency_s=arguments.latency, limiter=limiter),
        host=HOST,
        port=arguments.port,
        # One line per call would cost more than the call.
        access_log=None,
        print=None,
        shutdown_timeout=1,
        loop=uvloop.new_event_loop(),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
