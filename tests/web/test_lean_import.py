"""aiohttp without the certificate authorities: nothing is loaded early, and verification stays on."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, ssl
loaded = []
real = ssl.SSLContext.load_default_certs
def spy(self, *args):
    loaded.append(type(self).__name__)
    return real(self, *args)
ssl.SSLContext.load_default_certs = spy
os.environ.pop("SSL_CERT_DIR", None)
before = dict(os.environ)
eager = ssl.create_default_context

from agent.kit import lean_aiohttp
lean_aiohttp.load()
import aiohttp, aiohttp.connector

assert loaded == [], loaded
assert dict(os.environ) == before
assert ssl.create_default_context is eager
lean_aiohttp.load()

context = aiohttp.connector._SSL_CONTEXT_VERIFIED
plain = eager()
assert context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname
assert context.verify_flags == plain.verify_flags and context.options == plain.options
loaded.clear()
bios = ssl.MemoryBIO(), ssl.MemoryBIO()
context.wrap_bio(*bios, server_hostname="host.example")
context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="host.example")
assert loaded == ["LateTrust"], loaded
assert context.cert_store_stats() == plain.cert_store_stats()
print("as before")
"""


def test_authorities_are_loaded_by_the_first_handshake_and_verified_against_as_before() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("as before\n", "")


def test_what_few_need_is_not_loaded_by_the_agent() -> None:
    heavy = (
        "asyncssh",
        "cryptography",
        "bcrypt",
        "pysequoia",
        "pyrage",
        "dulwich",
        "jinja2",
        "click",
        "rich",
    )
    program = f"import sys, agent.app; print([name for name in {heavy!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
