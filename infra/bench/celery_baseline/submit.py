"""Submits jobs as the web backend did: a row, then the task. Reads requests from standard input, a JSON object a line.

Says "ready" first, and answers each request with a line that says whether its caller would have heard that the job was
accepted.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from infra.bench.celery_baseline.tasks import customize

_AT_ONCE = 8


def _submit(request: dict[str, Any]) -> None:
    try:
        with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=5) as connection:
            connection.execute(
                "INSERT INTO customization_jobs (job_id, organization_id, requirements) VALUES (%s, %s, %s)",
                (request["job_id"], request["organization_id"], request["requirements"]),
            )
        customize.apply_async((request["organization_id"], request["requirements"]), task_id=request["job_id"])
        accepted = True
    except (psycopg.Error, KombuError, RedisError, OSError):
        accepted = False
    sys.stdout.write(json.dumps({"job_id": request["job_id"], "accepted": accepted}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Submit what comes in, several at once, until the input ends."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for line in sys.stdin:
            threads.submit(_submit, json.loads(line))


if __name__ == "__main__":
    main()
