"""Executables that unpack themselves, of kinds that people ship, around a static web server in C.

Each `build_*` writes one file that serves `hello from VERSION` on $PORT. They block: call them in threads.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.kit import sandbox
from tests.kit.image import ROOT

SOURCES = ROOT / "tests/system"
PEX_MAIN = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from VERSION\\n")

def run():
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
ARX = """#!/bin/sh
# As the archives of nix-bundle: unpacked once, below ~/.cache, under a name made of their content.
set -e -u
case $0 in /*) self=$0 ;; *) self=$PWD/$0 ;; esac
mkdir -p "$HOME/.cache/tmpx-DIGEST"
cd "$HOME/.cache/tmpx-DIGEST"
if ! [ -d dat ]; then
  mkdir dat
  tail -n +LINES "$self" | tar -xjf - -C dat
fi
cd dat
(exec .STORE/user-chroot/bin/user-chroot ./nix STORE/web/bin/web "$@")
exit $?
"""


def server(version: str, target: Path) -> Path:
    """The web server, compiled for a version."""
    source = (ROOT / "examples/static-c/hello.c").read_text()
    return sandbox.compiled(source, target, "-static", "-O1", f'-DVERSION="{version}"')


def build_pex(version: str, work: Path, target: Path) -> None:
    """By pex, whose app is in Python."""
    (work / "source").mkdir()
    (work / "source/web.py").write_text(PEX_MAIN.replace("VERSION", version))
    python = os.path.realpath(sys.executable)
    subprocess.run(
        [Path(sys.executable).with_name("pex"), "-D", work / "source", "-e", "web:run", "-o", target,
         "--python", python, "--python-shebang", f"#!{python}", "--pex-root", work / "root"],
        check=True, capture_output=True,
    )  # fmt: skip


def build_appimage(version: str, work: Path, target: Path) -> None:
    """An ELF program with a squashfs image behind it, by mksquashfs."""
    tree = work / "tree"
    (tree / "usr/bin").mkdir(parents=True)
    server(version, work / "hello").rename(tree / "usr/bin/hello")
    (tree / "AppRun").write_text('#!/bin/sh\nexec "$APPDIR/usr/bin/hello"\n')
    (tree / "AppRun").chmod(0o755)
    subprocess.run(
        [sandbox.tool("mksquashfs"), tree, work / "image", "-quiet", "-no-progress", "-all-root"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    source = (SOURCES / "appimage.c").read_text()
    head = sandbox.compiled(source, work / "runtime", "-static", "-O1").read_bytes()
    target.write_bytes(head[:8] + b"AI\x02" + head[11:] + (work / "image").read_bytes())


def build_nix_bundle(version: str, work: Path, target: Path) -> None:
    """A script with a closure behind it, whose programs find one another in /nix/store."""
    store = "/nix/store/" + "0" * 32
    tree = work / "tree"
    parts = {
        "user-chroot": sandbox.compiled((SOURCES / "user_chroot.c").read_text(), work / "chroot", "-static"),
        "hello": server(version, work / "hello"),
        "sh": Path(sandbox.tool("busybox")),
    }
    for name, program in parts.items():
        place = Path(f"{tree}{store}-{name}/bin")
        place.mkdir(parents=True)
        shutil.copy(program, place / name)
    script = Path(f"{tree}{store}-web/bin/web")
    script.parent.mkdir(parents=True)
    script.write_text(f"#!{store}-sh/bin/sh\nexec {store}-hello/bin/hello\n")
    script.chmod(0o755)
    closure = io.BytesIO()
    with tarfile.open(fileobj=closure, mode="w:bz2") as tar:
        tar.add(tree, ".")
    text = ARX.replace("LINES", str(ARX.count("\n") + 1)).replace("DIGEST", f"{version}-of-its-content")
    target.write_bytes(text.replace("STORE/", f"{store}-").encode() + closure.getvalue())


def build_makeself(version: str, work: Path, target: Path) -> None:
    """By makeself: unpacked for each start, into TMPDIR or /tmp, and removed at its end."""
    (work / "tree").mkdir()
    server(version, work / "hello").rename(work / "tree/hello")
    (work / "tree/start").write_text("#!/bin/sh\n./hello\n")
    (work / "tree/start").chmod(0o755)
    subprocess.run(
        [sandbox.tool("makeself"), "--nox11", "--quiet", work / "tree", target, "web", "./start"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
