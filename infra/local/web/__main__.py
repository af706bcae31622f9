"""`python -m infra.local.web --port N --api URL` serves the front end until it is stopped."""

import argparse
import sys

from aiohttp import web

from infra.auth import signing_key
from infra.local.processes import HOST
from infra.local.web.server import create_app
from infra.ports import PortTaken, require_free
from infra.settings import settings


def main() -> int:
    """Serve until a signal ends it. A port that is taken is a plain message and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m infra.local.web", description="A small front end for the API.")
    parser.add_argument("--port", type=int, required=True, help="the port on the loopback interface")
    parser.add_argument("--api", required=True, help="the API's address; TEAMFIT_CORS_ORIGINS there names this origin")
    arguments = parser.parse_args()
    try:
        require_free(arguments.port, "--port")
    except PortTaken as error:
        print(error, file=sys.stderr)  # noqa: T201 - a command's own message
        return 2
    app = create_app(arguments.api, signing_key(settings()))
    web.run_app(app, host=HOST, port=arguments.port, access_log=None, print=None, shutdown_timeout=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
