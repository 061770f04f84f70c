"""A program: the yardstick of push_to_live, and its clock. One process, blocking calls, nothing kept safe.

It reads orders as lines of JSON and answers each with one:

    {"do": "bare", "commit", "version"}   fetch the commit, GET, hash, unpack, spawn, until it answers
    {"do": "push", "commit", "version"}   send the signed webhook, until the agent's app answers with it

Connections for Git and artifacts are kept open; everything is imported and warm. No journal, no sync to
disk, no look whether the branch really names the commit, no second version beside the first.

To look whether a version answers costs CPU that the deploy on the same machine lacks. By hand one knows
when to begin to look: after the spawn. For the agent looking begins when the shortest round by hand would
have been over.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from agent.source.git.pack import Pack

PAUSE = 0.001
DEADLINE = 20.0
Json = dict[str, Any]


class Steps:
    """Seconds of each step, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def done(self, name: str) -> None:
        """A step ended, and the next begins."""
        now = time.perf_counter()
        self.seconds[name], self._began = now - self._began, now


class Bare:
    """Deploys by hand.

    Args:
        given: `git` (URL of the repository), `artifacts`, `webhook` (URLs), `secret`, `app_port` (the
            agent's), `port` (ours) and `directory` (ours).
    """

    def __init__(self, given: Json) -> None:
        self._given = given
        git, artifacts = urlsplit(given["git"]), urlsplit(given["artifacts"])
        self._path = git.path
        self._git = http.client.HTTPConnection(git.netloc)
        self._artifacts = http.client.HTTPConnection(artifacts.netloc)
        self._child: subprocess.Popen[bytes] | None = None
        self._shortest = DEADLINE

    def order(self, order: Json) -> Json:
        """Carry out one."""
        return self.push(order) if order["do"] == "push" else self.bare(order)

    def bare(self, order: Json) -> Json:
        """The bare steps, then (not measured) the end of what they started."""
        steps, began = Steps(), time.perf_counter()
        app = yaml.load(self._fetch(order["commit"]), Loader=yaml.CSafeLoader)["apps"]["web"]
        steps.done("fetch commit")
        path = urlsplit(app["artifact"]["url"].replace("{{ version }}", app["version"])).path
        self._artifacts.request("GET", path)
        data = self._artifacts.getresponse().read()
        steps.done("GET")
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == app["artifact"]["checksum"]
        steps.done("hash")
        root = Path(self._given["directory"]) / order["version"]
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(root, filter="data")
        steps.done("unpack")
        self._child = subprocess.Popen(
            app["run"]["command"],
            cwd=root / "web",
            env={"PORT": str(self._given["port"])},
            stdout=subprocess.DEVNULL,
        )
        steps.done("spawn")
        _until_answered(self._given["port"], "/healthz", "fine")
        steps.done("first healthy answer")
        seconds = time.perf_counter() - began
        self._shortest = min(seconds, self._shortest)
        self.end()
        return {"seconds": seconds, "steps": steps.seconds}

    def end(self) -> None:
        """End what was started."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()

    def push(self, order: Json) -> Json:
        """The signed webhook, on a connection of its own as forges send it, until the version answers."""
        body = json.dumps(
            {
                "ref": "refs/heads/main",
                "before": "0" * 40,
                "after": order["commit"],
                "repository": {"full_name": "bench/state", "clone_url": self._given["git"]},
            }
        ).encode()
        secret = self._given["secret"].encode()
        headers = {
            "X-Gitea-Event": "push",
            "X-Gitea-Delivery": str(uuid.uuid4()),
            "X-Gitea-Signature": hmac.new(secret, body, hashlib.sha256).hexdigest(),
            "Content-Type": "application/json",
        }
        target = urlsplit(self._given["webhook"])
        sent, began = time.time(), time.perf_counter()
        connection = http.client.HTTPConnection(target.netloc)
        connection.request("POST", target.path, body, headers)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        answered = time.perf_counter() - began
        connection.close()
        assert answer.status == 202, told
        if self._shortest < DEADLINE:
            time.sleep(max(0.0, began + self._shortest - time.perf_counter()))
        _until_answered(self._given["app_port"], "/", order["version"])
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "answered": answered, "sent": sent, "sync": told["sync"]}

    def _fetch(self, commit: str) -> bytes:
        """state.yaml of a commit: one request of protocol v2, gitprotocol-v2(5)."""
        body = _packet(b"command=fetch\n") + b"0001"
        lines = (b"no-progress\n", b"ofs-delta\n", b"deepen 1\n", f"want {commit}\n".encode(), b"done\n")
        body += b"".join(map(_packet, lines)) + b"0000"
        headers = {"Content-Type": "application/x-git-upload-pack-request", "Git-Protocol": "version=2"}
        self._git.request("POST", f"{self._path}/git-upload-pack", body, headers)
        pack = Pack(_pack_in(self._git.getresponse().read()), "sha1")
        try:
            tree = pack.get(commit)[1].split(b"\n", 1)[0].removeprefix(b"tree ").decode()
            entry = pack.get(tree)[1].partition(b"100644 state.yaml\0")[2][:20]
            return pack.get(entry.hex())[1]
        finally:
            pack.close()


def _packet(line: bytes) -> bytes:
    return b"%04x" % (len(line) + 4) + line


def _pack_in(answer: bytes) -> bytes:
    """The pack in the answer to a fetch: what side band 1 carries after the line `packfile`."""
    at, pack, inside = 0, b"", False
    while at < len(answer):
        length = int(answer[at : at + 4], 16)
        line, at = answer[at + 4 : at + length], at + max(length, 4)
        if inside and line[:1] == b"\x01":
            pack += line[1:]
        inside = inside or line == b"packfile\n"
    return pack


def _until_answered(port: int, path: str, text: str) -> None:
    """Ask, on new connections, until status 200 and this text."""
    end = time.perf_counter() + DEADLINE
    request, wanted = (
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode(),
        text.encode(),
    )
    while time.perf_counter() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
                connection.sendall(request)
                answer = b""
                while data := connection.recv(4096):
                    answer += data
            head, _, body = answer.partition(b"\r\n\r\n")
            if b" 200 " in head[:16] and body.strip() == wanted:
                return
        except ConnectionError:
            pass
        time.sleep(PAUSE)
    raise TimeoutError(f"no {text} from port {port}")


def main() -> None:
    """Take orders until there are no more."""
    bare = Bare(json.loads(sys.stdin.readline()))
    try:
        for line in sys.stdin:
            print(json.dumps(bare.order(json.loads(line))), flush=True)
    finally:
        bare.end()
    os._exit(0)


if __name__ == "__main__":
    main()
