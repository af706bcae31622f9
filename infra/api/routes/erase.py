"""The operators' routes by which an organization's texts are erased."""

from dataclasses import asdict
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, responses
from infra.api.routes.frozen_plans import APPLY_AT_MOST
from infra.auth import OPERATOR, Caller
from infra.identity import Tokens
from infra.operations import erase
from infra.operations.job_search import Term
from infra.postgres import Database
from producers.cancellation import Cancellation
from producers.turns import Turns
from streams.delivery.interfaces import Publisher

_LOOKS: Final = responses(*TOKEN, *BODY, "organization_not_found", "database_unavailable")
_ERASES: Final = responses(
    *TOKEN, *BODY, "organization_not_found", "broker_unavailable", "database_unavailable", "too_busy"
)


class TextsOf(BaseModel):
    """The organization whose texts are erased."""

    model_config = ConfigDict(extra="forbid")

    organization_id: Term


class EraseTexts(TextsOf):
    """The body says whose texts, and where an erasure goes on."""

    after: UUID | None = Field(default=None, description="`next` of the answer before, where there was one.")


class Erasure(BaseModel):
    """Rows that hold an organization's texts, or held them before they were erased."""

    organization_id: str
    live: int = Field(description="Jobs that have not ended; they are cancelled first.")
    jobs: int
    events: int
    activities: int
    failed_events: int
    cancellations: int = Field(description="Those that came before their job was asked for.")


class ErasureSoFar(Erasure):
    """An erasure touches these rows, and is so far."""

    total: int = Field(description="Jobs whose rows are gone through.")
    left: int = Field(description="Jobs whose turn has not come.")
    next: UUID | None = Field(description="Send it as `after` to go on; null: all is erased.")


def create_router(database: Database, publisher: Publisher, tokens: Tokens) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/api/ops/organizations/erase", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR, logs=database)
    heavy = Turns(1)

    @router.post("/effects", responses=_LOOKS, dependencies=[Depends(operator)])
    async def show_texts(body: TextsOf) -> Erasure:
        """Say what an erasure would touch; nothing is done."""
        return _shown(await erase.find_texts(database, body.organization_id))

    @router.post("", responses=_ERASES)
    async def erase_texts(body: EraseTexts, caller: Annotated[Caller, Depends(operator)]) -> ErasureSoFar:
        """Erase an organization's texts for about ten seconds, live jobs cancelled first. This cannot be undone.

        Repeat the call with `after` set to the answer's `next` until that is null; nothing runs on in between. From the
        beginning it may be repeated too, and changes nothing where all is erased. Repeat it once the topics' retention
        in the broker has passed.
        """
        async with heavy.one():
            texts = await erase.find_texts(database, body.organization_id)
            so_far = erase.Erased(0, 0)
            if texts.anything:
                cancellation = Cancellation(database, publisher, database.clock)
                how = erase.How(operator=caller.subject, after=body.after, at_most=APPLY_AT_MOST)
                so_far = await erase.erase_texts(database, cancellation, texts, **how)
        return ErasureSoFar(**dict(_shown(texts)), **asdict(so_far))

    return router


def _shown(texts: erase.Texts) -> Erasure:
    fields = {name: getattr(texts, name) for name in Erasure.model_fields if name != "live"}
    return Erasure(live=len(texts.live), **fields)
