"""What an upstream service drags in with the client."""

import subprocess
import sys

LOADED = "import sys, producers.client; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def test_the_client_needs_only_redis_and_pydantic() -> None:
    """Importing the client loads no Faust, no web framework, no Postgres driver and no settings."""
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"redis", "pydantic"} <= loaded
    assert not loaded & {"faust", "mode", "fastapi", "asyncpg", "pydantic_settings", "aiokafka", "yarl", "structlog"}
