"""Settings as the environment variables that a child process reads them from."""

import os

from pydantic import SecretStr

from infra.settings import Settings


def environment(settings: Settings) -> dict[str, str]:
    """Return this process's environment with every setting that was given, wherever it was read from.

    A child runs in another folder, so it would not find the `.env` file that this process has read.
    """
    given = {}
    for name in settings.model_fields_set:
        value = getattr(settings, name)
        if value is not None:
            given[Settings.variable(name)] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return {**os.environ, **given}
