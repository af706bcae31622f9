"""What an upstream service drags in with the client."""

import re
import subprocess
import sys
from pathlib import Path

import producers.client

LOADED = "import sys, producers.client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def test_the_client_needs_only_redis_and_pydantic() -> None:
    """Importing the client loads no Faust, no web framework, no Postgres driver and no settings."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"redis", "pydantic"} <= loaded
    assert not loaded & {"faust", "mode", "fastapi", "asyncpg", "pydantic_settings", "aiokafka", "yarl", "structlog"}


def test_the_client_has_every_name_that_its_wheel_has() -> None:
    """Whatever it raises and returns can be named from where it stands; one error had to be imported from elsewhere."""
    hook = (Path(producers.client.__file__).parent / "wheel" / "hatch_build.py").read_text()
    names = set(re.findall(r'^    "(\w+)",$', hook, re.MULTILINE))
    assert names - set(producers.client.__all__) == {"BlockingJobRequests"}
    assert all(hasattr(producers.client, name) for name in producers.client.__all__)
