"""An LLM endpoint is named by its address. Apart from what calls it, which is large to load."""

from typing import Final

import httpx2

from infra.settings import Settings

OPENAI: Final = "https://api.openai.com/v1"


def endpoint_of(settings: Settings) -> str:
    """Return the endpoint's address as the fleet names it, without its secrets."""
    configured = (settings.openai_base_url or OPENAI).strip()
    try:
        return str(httpx2.URL(configured).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx2.InvalidURL:
        return "an address that is none"
