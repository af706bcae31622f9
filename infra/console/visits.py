"""A visit says who looks at a page, and what they may do there."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response

from infra.console.sessions import Session
from infra.errors import Refused

MOST_FIELDS: Final = 1_100  # a page of jobs, all of them chosen


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who is signed in.

    Attributes:
        fields: of the address for a page; of the form for an action. Blank ones are left out.
        reads_texts: whether what customers and models wrote is shown.
    """

    request: Request
    session: Session
    fields: Mapping[str, str]
    chosen: tuple[str, ...]
    reads_texts: bool

    @property
    def may_act(self) -> bool:
        """Return true for an operator."""
        return self.session.role == "operator"

    @property
    def root(self) -> str:
        """Return the prefix of every address of the console."""
        return root_of(self.request)

    def path(self, name: str) -> str:
        """Return a parameter of the path, as text."""
        return str(self.request.path_params[name])


View: TypeAlias = Callable[[Visit], Awaitable[Response]]


class NotAllowed(Exception):
    """A request is refused because of who sends it. `status` is HTTP's."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def root_of(request: Request) -> str:
    """Return the prefix below which the console is served, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def address_of(request: Request) -> str:
    """Return the path of a request below the console's prefix."""
    return str(request.scope["path"]).removeprefix(root_of(request))


def query_of(request: Request) -> dict[str, str]:
    """Return what an address asks for; a form sends its blank fields too."""
    return {name: value.strip() for name, value in request.query_params.items() if value.strip()}


def require_each_once(request: Request) -> None:
    """Pass if an address has each field once. Of two values one would be left out without a word. Raises Refused."""
    given = Counter(name for name, value in request.query_params.multi_items() if value.strip())
    for name, times in given.items():
        if times > 1:
            raise Refused("invalid_request", f"{name[:100]}: is given twice; leave one of them out")


async def form_of(request: Request) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return a form's fields, and every value of those called `chosen`. Raises NotAllowed for what is no form."""
    sort = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sort != "application/x-www-form-urlencoded":
        raise NotAllowed(415, "this address takes a form (application/x-www-form-urlencoded)")
    try:
        pairs = parse_qsl((await request.body()).decode(), max_num_fields=MOST_FIELDS, keep_blank_values=False)
    except ValueError as error:
        raise NotAllowed(400, "the form cannot be read; send UTF-8, and fewer fields") from error
    return {name: value.strip() for name, value in pairs}, tuple(value for name, value in pairs if name == "chosen")


def came_from_elsewhere(request: Request) -> bool:
    """Return true if another site sent a form here. Browsers say so; what is no browser has no cookies to abuse."""
    fetched = request.headers.get("sec-fetch-site")
    return fetched not in {None, "same-origin", "none"}
