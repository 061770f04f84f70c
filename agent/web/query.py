"""Reading query parameters, each within bounds."""

from __future__ import annotations

from aiohttp import web

from agent.web.problem import Problem


def text(request: web.Request, name: str) -> str:
    """A text; "" when it is not given. Raises Problem."""
    value = request.query.get(name, "")
    if len(value) > 200:
        raise Problem(400, "QueryInvalid", f"{name} has more than 200 characters")
    return value


def number(request: web.Request, name: str, default: int, most: int) -> int:
    """A number from 1 to `most`. Raises Problem."""
    given = request.query.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 10 and 1 <= int(given) <= most):
        raise Problem(400, "QueryInvalid", f"{name} must be a number from 1 to {most}")
    return int(given)


def flag(request: web.Request, name: str) -> bool:
    """Whether it is given as 1, true or yes."""
    return request.query.get(name, "").lower() in ("1", "true", "yes")
