"""A UUID that others send names one thing. Those of zeros and of ones name none.

A service whose ID was never set sends zeros (Go, C#), and would share one job with all others that do. Every edge
refuses them: HTTP, stream, client and commands.
Source: https://www.rfc-editor.org/rfc/rfc9562#section-5.9
"""

import re
from typing import Annotated, Final, TypeAlias
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

_RESERVED: Final = {UUID(int=0), UUID(int=2**128 - 1)}


# With spaces around it, in the brackets of some languages, or as a URN, whose scheme may be in capitals.
_WRITTEN: Final = re.compile(r"\s*[({]?(?:urn:uuid:)?([0-9a-f-]{32,36})[)}]?\s*", re.IGNORECASE | re.ASCII)


def _bare(given: object) -> object:
    found = _WRITTEN.fullmatch(given) if isinstance(given, str) else None
    return found[1] if found else given


def named(given: UUID) -> UUID:
    """Return a UUID. Raises ValueError for one that is reserved and names nothing."""
    if given in _RESERVED:
        raise ValueError("is a UUID that names nothing, all zeros or all ones; make a new one (uuidgen) for each job")
    return given


GivenUuid: TypeAlias = Annotated[
    UUID,
    BeforeValidator(_bare),
    AfterValidator(named),
    WithJsonSchema({"type": "string", "format": "uuid", "not": {"pattern": "^(0[0-]+0|[fF][fF-]+[fF])$"}}),
]
