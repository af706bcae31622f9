"""The console: pages on which operators see and act, in a browser."""

from infra.console.app import Console, StrictHeaders
from infra.console.sessions import make_link

__all__ = ["Console", "StrictHeaders", "make_link"]
