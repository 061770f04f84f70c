"""A web application, and gunicorn to serve it: `web.main:run` is what the executable starts."""

import os
import sys

VERSION = "1.0"


def app(_environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"hello from {VERSION}\n".encode()]


def run():
    from gunicorn.app.wsgiapp import run as serve

    sys.argv = ["web", "--bind", f"0.0.0.0:{os.environ['PORT']}", "--worker-tmp-dir", "/tmp", "web.main:app"]
    serve()
