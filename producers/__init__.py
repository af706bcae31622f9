"""The producers emit events."""
