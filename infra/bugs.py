"""The log has the class and the place of an unexpected error, not its text.

A driver's error quotes the value that it could not use, which may be a customer's wish.
"""

import traceback


def chain_of(error: BaseException | None) -> str:
    """Name an error's class and those of its causes."""
    names: list[str] = []
    while error is not None:
        names.append(type(error).__qualname__)
        error = error.__cause__ or error.__context__
    return " from ".join(names)


def frames_of(error: BaseException) -> list[str]:
    """Return the file, line and function of each of its frames."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
