"""Settings as the environment variables that a child process reads them from."""

import os
from collections.abc import Iterable

from pydantic import SecretStr

from infra.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """Return this process's environment with every setting that was given, wherever it was read from.

    A child runs in another folder, so it would not find the `.env` file that this process has read.
    """
    return {**os.environ, **variables(settings, settings.model_fields_set)}


def variables(settings: Settings, names: Iterable[str]) -> dict[str, str]:
    """Return settings that have a value, as variables. The names are those of the fields."""
    found = {name: getattr(settings, name) for name in names}
    return {
        Settings.variable(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        for name, value in found.items()
        if value is not None
    }
