"""Each router asks these FastAPI dependencies who calls, and for the caller's trace."""

from dataclasses import dataclass
from typing import Annotated, TypeAlias

import structlog
from fastapi import Depends, Header, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from infra import tracing
from infra.actions import Act, act_as, note_refusal
from infra.api.problems import Problem
from infra.auth import Caller, InvalidToken
from infra.identity import Tokens
from infra.postgres import Database
from streams.delivery.traces import NO_TRACE, Trace, trace_id_of

scheme = HTTPBearer(auto_error=False, bearerFormat="JWT", description="Made by `teamfit token --organization ORG`.")


# By then the identity provider is asked for its keys again.
_RETRY_AFTER_S = "30"


@dataclass(frozen=True, slots=True)
class Authenticated:
    """Checks a request's bearer token: its signature, and the scope that the route asks for.

    Use as a dependency: `caller: Annotated[Caller, Depends(Authenticated(tokens, scope=JOBS))]`.

    Attributes:
        tokens: reads them.
        scope: what the route asks for.
        logs: where actions that are refused for their scope are logged; None: nowhere, as with customers.
    """

    tokens: Tokens
    scope: str
    logs: Database | None = None

    async def __call__(
        self,
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)],
    ) -> Caller:
        """Return the caller.

        Raises:
            Problem: 401 without a valid token, 403 without the scope, 503 while it cannot be judged.
        """
        if len(set(request.headers.getlist("authorization"))) > 1:
            # A proxy may have believed the other one.
            detail = "the Authorization header is given more than once; send one"
            raise _unauthenticated("unauthenticated", detail)
        if credentials is None:
            sent = "is not a bearer token" if "authorization" in request.headers else "is missing"
            raise _unauthenticated("unauthenticated", f"the Authorization header {sent}; send `Bearer <token>`")
        return await self.caller_of(request, credentials.credentials)

    async def caller_of(self, request: Request, token: str) -> Caller:
        """Return the caller whose token this is. Raises Problem, as for a request with this token."""
        try:
            caller = await self.tokens.read(token)
        except InvalidToken as error:
            if error.code == "identity_unavailable":
                raise Problem(503, error.code, str(error), headers={"Retry-After": _RETRY_AFTER_S}) from error
            raise _unauthenticated(error.code, str(error), challenge=', error="invalid_token"') from error
        act_as(caller.subject, "api")
        if self.scope not in caller.scopes:
            await self._log_refusal(request)
            challenge = _challenge(f', error="insufficient_scope", scope="{self.scope}"')
            raise Problem(
                403, "insufficient_scope", f"the bearer token lacks the scope `{self.scope}`", headers=challenge
            )
        return caller

    async def _log_refusal(self, request: Request) -> None:
        if self.logs is not None and request.method not in {"GET", "HEAD"}:
            act = Act("request", f"{request.method} {request.url.path}")
            await note_refusal(self.logs, act, f"the bearer token lacks the scope {self.scope}")


def _unauthenticated(code: str, detail: str, *, challenge: str = "") -> Problem:
    return Problem(401, code, detail, headers=_challenge(challenge))


def _challenge(parameters: str) -> dict[str, str]:
    return {"WWW-Authenticate": f'Bearer realm="teamfit"{parameters}'}


_TraceParent = Annotated[str | None, Header(description="W3C trace context. What is malformed is ignored.")]
_TraceState = Annotated[list[str] | None, Header(description="Goes with `traceparent`.")]


async def _callers_trace(request: Request, traceparent: _TraceParent = None, tracestate: _TraceState = None) -> Trace:
    """Return the caller's trace, and bind it to the log lines about the request, which has a context of its own."""
    if len(request.headers.getlist("traceparent")) > 1:
        traceparent = None  # either one may be meant
    state = ",".join(tracestate or ()) if trace_id_of(traceparent) else ""
    # Of the span of this request, where one is made; it is below the caller's.
    traceparent = tracing.traceparent() or traceparent
    trace_id = trace_id_of(traceparent)
    if trace_id is None:
        return NO_TRACE
    structlog.contextvars.bind_contextvars(trace_id=trace_id)
    return Trace(traceparent, state)


CallersTrace: TypeAlias = Annotated[Trace, Depends(_callers_trace)]
