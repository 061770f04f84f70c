"""A WSGI application (PEP 3333): its version to everyone."""

import os
from collections.abc import Callable, Iterable

BODY = f"{os.environ['EMPTYBOX_VERSION']}\n".encode()


def app(_environ: dict[str, object], start_response: Callable[..., object]) -> Iterable[bytes]:
    """One request."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))])
    return [BODY]
