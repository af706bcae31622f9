"""The generation stage: an accepted job becomes exactly three activities, by one call to an LLM.

`faust -A consumers.generation worker` runs it. The Faust app is made when somebody asks for it, so that importing the
handlers neither reads settings nor imports Faust.
"""

from typing import Any


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the signature that Python gives this hook
    if name == "app":
        from consumers.generation.worker import app  # noqa: PLC0415 - see the module's docstring

        return app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
