"""The console: pages on which operators see and act, in a browser."""

from infra.console.app import Console
from infra.console.sessions import make_link
from infra.console.strict import StrictHeaders

__all__ = ["Console", "StrictHeaders", "make_link"]
