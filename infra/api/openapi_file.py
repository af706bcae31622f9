"""`docs/openapi.json` is the API's OpenAPI document, for whoever generates a client without a running API.

`python -m infra.api.openapi_file` writes it again after a change of a route.
"""

from pathlib import Path
from typing import Final

import orjson
from pydantic import SecretStr

from infra.api.app import create_api
from infra.settings import Settings

FILE: Final = Path(__file__).parents[2] / "docs" / "openapi.json"
# Nothing is connected to, and no token made: the document says neither.
_NONE: Final = "none, but long enough that the API can be made"


def document() -> bytes:
    """Return what the file should hold."""
    settings = Settings(signing_key=SecretStr(_NONE), console=False, _env_file=None)
    described = create_api(settings).openapi()
    return orjson.dumps(described, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    FILE.write_bytes(document())
