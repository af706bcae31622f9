"""A FastAPI route that returns a constant: what `infra.bench.service` reads a job's status beside.

It is served as the API is, by the same server with the same settings, and knows neither tokens nor a database.
"""

import argparse

import uvicorn
from fastapi import FastAPI, Response

from infra.api.server import configuration
from infra.settings import Settings

_BODY = b'{"success":true,"activities":["%s"]}' % (b"x" * 1800)  # as long as a completed job's


def create_api() -> FastAPI:
    """Return an API of one route."""
    api = FastAPI()

    @api.get("/api/jobs/{job_id}")
    async def get_job(job_id: str) -> Response:
        return Response(_BODY, headers={"ETag": f'"{job_id}"'}, media_type="application/json")

    return api


def main() -> None:
    """Serve until a signal stops it."""
    parser = argparse.ArgumentParser(prog="python -m infra.bench.constant_route", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where to listen")
    uvicorn.Server(configuration(create_api(), Settings(), port=parser.parse_args().port)).run()


if __name__ == "__main__":
    main()
