"""A UUID that others send names one thing. Those of zeros and of ones name none.

A service whose ID was never set sends zeros (Go, C#), and would share one job with all others that do. Every edge
refuses them: HTTP, stream, client and commands.
Source: https://www.rfc-editor.org/rfc/rfc9562#section-5.9
"""

from typing import Annotated, Final, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, WithJsonSchema

_RESERVED: Final = {UUID(int=0), UUID(int=2**128 - 1)}


def named(given: UUID) -> UUID:
    """Return a UUID. Raises ValueError for one that is reserved and names nothing."""
    if given in _RESERVED:
        raise ValueError("is a UUID that names nothing, all zeros or all ones; make a new one (uuidgen) for each job")
    return given


GivenUuid: TypeAlias = Annotated[
    UUID,
    AfterValidator(named),
    WithJsonSchema({"type": "string", "format": "uuid", "not": {"pattern": "^(0[0-]+0|[fF][fF-]+[fF])$"}}),
]
