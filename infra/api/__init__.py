"""The HTTP API: `uvicorn --factory infra.api:create_api`, or `teamfit api`."""

from infra.api.app import create_api

__all__ = ["create_api"]
