"""Refuses a query that gives a parameter twice. One of the two would be passed over."""

from collections import Counter

from fastapi import Request
from fastapi.exceptions import RequestValidationError


async def each_once(http: Request) -> None:
    """Pass if each query parameter is given once. Raises RequestValidationError."""
    counts = Counter(name for name, _ in http.query_params.multi_items())
    repeated = [name for name, count in counts.items() if count > 1]
    if repeated:
        why = ValueError("is given more than once; give it once")
        errors = [{"type": "value_error", "loc": ("query", name), "ctx": {"error": why}} for name in repeated]
        raise RequestValidationError(errors)
