"""The console shows docs/operating.md, so that a fault links to what to do about it."""

from functools import cache
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from starlette.responses import Response
from starlette.routing import Route

from infra.console.desk import Desk
from infra.console.rendering import anchor
from infra.console.visits import Visit

# In the wheel it lies beside the templates; in a checkout it is where everybody looks for it.
_PLACES: Final = (
    Path(__file__).parents[1] / "operating.md",
    Path(__file__).parents[3] / "docs" / "operating.md",
)


def routes(desk: Desk) -> list[Route]:
    """Return the route."""

    async def show(visit: Visit) -> Response:
        return desk.show(visit, "guide.html", guide=_rendered())

    return [desk.page("/operating", show)]


@cache
def _rendered() -> str:
    """Return the page as HTML. It is ours; HTML in it would be escaped all the same."""
    text = next(place for place in _PLACES if place.exists()).read_text(encoding="utf-8")
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = renderer.parse(text)
    for place, token in enumerate(tokens):
        token.attrs.pop("style", None)  # the policy allows none
        if token.type == "heading_open":
            token.attrSet("id", anchor(tokens[place + 1].content))
        for inner in token.children or ():
            # Other documents are not served here, so a link to one is its text.
            if inner.type == "link_open" and not str(inner.attrGet("href")).startswith("#"):
                inner.attrs = {}
    # The page has its own heading already.
    return str(renderer.renderer.render(tokens[3:], renderer.options, {}))
