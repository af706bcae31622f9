"""The operators' routes by which an organization's texts are erased."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from infra.api.caller import Authenticated
from infra.api.problems import BODY, TOKEN, responses
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


class Erasure(BaseModel):
    """Rows that hold an organization's texts, or held them before they were erased."""

    organization_id: str
    live: int = Field(description="Jobs that have not ended; they are cancelled first.")
    jobs: int
    events: int
    activities: int
    failed_events: int
    cancellations: int = Field(description="Those that came before their job was asked for.")


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
    async def erase_texts(body: TextsOf, caller: Annotated[Caller, Depends(operator)]) -> Erasure:
        """Erase an organization's texts in every table, after its live jobs are cancelled. This cannot be undone.

        Answered when all is erased. A repeat changes nothing, and goes on where an outage has stopped this. Repeat it
        once the topics' retention in the broker has passed.
        """
        async with heavy.one():
            texts = await erase.find_texts(database, body.organization_id)
            if texts.anything:
                cancellation = Cancellation(database, publisher, database.clock)
                await erase.erase_texts(database, cancellation, texts, operator=caller.subject)
        return _shown(texts)

    return router


def _shown(texts: erase.Texts) -> Erasure:
    fields = {name: getattr(texts, name) for name in Erasure.model_fields if name != "live"}
    return Erasure(live=len(texts.live), **fields)
