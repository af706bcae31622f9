"""An LLM endpoint is named by its address. Apart from what calls it, which is large to load."""

from typing import Final

from infra.settings import Settings

OPENAI: Final = "https://api.openai.com/v1"


def endpoint_of(settings: Settings) -> str:
    """Return the endpoint's address as the fleet names it, without its secrets."""
    # A whole HTTP client, and the API names endpoints only where operators ask for them.
    import httpx2  # noqa: PLC0415

    configured = (settings.openai_base_url or OPENAI).strip()
    try:
        return str(httpx2.URL(configured).copy_with(userinfo=b"", query=None, fragment=None))
    except httpx2.InvalidURL:
        return "an address that is none"
