"""The route that tells operators what was done."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from infra.actions import Face
from infra.api.caller import Authenticated
from infra.api.problems import TOKEN, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations.actions import ActionFilter, ActionOutcome, find_actions
from infra.postgres import Database

_LARGEST_PAGE = 500


class ActionsQuery(ActionFilter):
    """The query for the log of actions: filter and page."""

    limit: int = Field(default=50, ge=1, le=_LARGEST_PAGE)
    cursor: str | None = Field(default=None, max_length=1_000, description="`next` of the page before.")


class OperatorAction(BaseModel):
    """Somebody did something, or was refused."""

    at: datetime
    actor: str
    face: Face = Field(description="From where: the command line, the API, the console, or other code.")
    action: str
    target: str
    reason: str | None
    effects: dict[str, Any] = Field(description="What followed, as it was shown at the time or came out.")
    outcome: ActionOutcome
    why: str | None = Field(description="Why it was refused.")


class ActionLog(BaseModel):
    """Actions of operators, the newest first."""

    actions: list[OperatorAction]
    next: str | None = Field(description="Give it as `cursor` for the next page; absent on the last one.")


def create_router(database: Database, tokens: Tokens) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix="/api/ops", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR)
    problems = responses(*TOKEN, "invalid_request", "database_unavailable")

    @router.get("/actions", responses=problems, dependencies=[Depends(operator)])
    async def list_actions(query: Annotated[ActionsQuery, Query()]) -> ActionLog:
        """List what operators did and what was refused, by console, command or API."""
        chosen = ActionFilter(**query.model_dump(include=set(ActionFilter.model_fields)))
        page = await find_actions(database, chosen, limit=query.limit, cursor=query.cursor)
        shown = [
            OperatorAction(**{name: getattr(one, name) for name in OperatorAction.model_fields}) for one in page.actions
        ]
        return ActionLog(actions=shown, next=page.next)

    return router
