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
            given[variable(name)] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
    return {**os.environ, **given}


def variable(field: str) -> str:
    """Return the environment variable of a field of the settings; a variable's own name is returned as it is."""
    if field not in Settings.model_fields:
        return field
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, str):
        return alias
    return f"{Settings.model_config.get('env_prefix', '')}{field}".upper()
