"""The operators' route to the overview: the pipeline at one moment."""

from fastapi import APIRouter, Depends

from infra.api.caller import Authenticated
from infra.api.problems import TOKEN, responses
from infra.auth import OPERATOR
from infra.identity import Tokens
from infra.operations.overview import Overview, Overviews


def create_router(overviews: Overviews, tokens: Tokens) -> APIRouter:
    """Return the route."""
    router = APIRouter(prefix="/api/ops", tags=["operators"])
    operator = Authenticated(tokens, scope=OPERATOR)
    problems = responses(*TOKEN, "database_unavailable")

    @router.get("/overview", responses=problems, dependencies=[Depends(operator)])
    async def show_overview() -> Overview:
        """Return the pipeline at one moment: jobs, stages, endpoints, money, and what is wrong.

        It is read at most every two seconds, what is added up over time every twenty, however many ask.
        """
        return await overviews.read()

    return router
