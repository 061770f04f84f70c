"""Runs in the machine of `powercuts`: looks what a power cut left, then deploys until the next one comes.

`cut_guest.py SERVED LAST`: SERVED is a directory of the host with the repository and the artifacts, LAST the
newest version that was told as proven before the power was cut, or -1. Standard library only, and little of
it: this machine is emulated. It tells on the serial line:

    @booted         the disk is mounted
    @serves N       of what is on the disk, without Git
    @answers        the agent does
    @reached N      what was wanted is
    @checked N      all is as it should be, and what was wanted is reached
    @proven N       deployed, and told to whoever asks
    @wrong ...      what is not as it should be
"""

import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

STAGE = "/run/stage"  # in memory
DATA = "/mnt/data"
REPOSITORY, AWAY = f"{STAGE}/state.git", f"{STAGE}/away.git"
PORT, ADMIN = 8080, 7070
PATIENCE = 300.0  # seconds for anything
TICK = 0.5  # seconds between two looks
UNDER_WAY = {
    "runs": "SELECT id, version, result FROM runs WHERE result IN ('running', 'probation')",
    "steps": "SELECT run, name FROM steps WHERE result = 'running'",
    "syncs": "SELECT id, result FROM syncs WHERE result IN ('running', 'probation')",
    "migrations": "SELECT * FROM migrations WHERE word = 'running'",
}


def tell(*words: object) -> None:
    """A line for the host."""
    print(*words, flush=True)


def ask(connection: http.client.HTTPConnection, path: str, body: str = "") -> tuple[int, str]:
    """Status and text of an answer; (0, why) without one."""
    try:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        connection.request("POST" if body else "GET", path, body or None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, repr(error)
    finally:
        connection.close()


def port(number: int) -> http.client.HTTPConnection:
    """A connection to a port of this machine."""
    return http.client.HTTPConnection("127.0.0.1", number, timeout=30)


def control() -> http.client.HTTPConnection:
    """A connection to the agent's socket."""
    connection = http.client.HTTPConnection("agent", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(f"{DATA}/agent.sock")
    return connection


def until(condition: Callable[[], T], what: str) -> T:
    """Look again until it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(TICK)
    tell("@wrong not in time:", what)
    with open(f"{STAGE}/log") as log:
        tell(log.read()[-6000:])
    sys.exit(1)


class Guest:
    """The agent of this machine, and what it was told."""

    def __init__(self, served: str, last: int) -> None:
        self.served, self.last = served, last
        with open(f"{served}/commits.json") as file:
            self.commits = json.load(file)
        os.makedirs(f"{STAGE}/world")
        shutil.copytree(f"{served}/state.git", AWAY)

    def start(self) -> None:
        """The agent, below its keeper."""
        flags = {
            "repo": f"file://{REPOSITORY}", "ref": "main", "data": DATA, "admin": f"127.0.0.1:{ADMIN}",
            "file-root": f"{self.served}/artifacts", "poll": "1h",
        }  # fmt: skip
        command = [sys.executable, "-P", "-m", "agent", "run", *(f"--{k}={v}" for k, v in flags.items())]
        with open(f"{STAGE}/log", "ab") as log:
            self.keeper = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def status(self) -> dict[str, Any]:
        """What the agent says; empty while it says nothing."""
        code, text = ask(port(ADMIN), "/status")
        return dict(json.loads(text)) if code == 200 else {}

    def answer(self) -> str:
        """The version that serves."""
        code, text = ask(port(PORT), "/")
        return text.strip() if code == 200 else ""

    def want(self, number: int) -> None:
        """Push this version: the ref names it."""
        if os.path.exists(AWAY):
            os.rename(AWAY, REPOSITORY)
        with open(f"{REPOSITORY}/refs/heads/main", "w") as ref:
            ref.write(self.commits[number] + "\n")
        self.keeper.send_signal(signal.SIGHUP)

    def proven(self, version: str) -> bool:
        """Whether this version serves and is good, and nothing is under way."""
        status = self.status()
        app = status.get("apps", {}).get("web", {})
        pairs = [(app.get(pair) or {}).get("version") for pair in ("current", "good")]
        rests = app.get("state") == "running" and not app["run"] and not status["source"]["running"]
        return bool(rests) and pairs == [version, version]

    def deploy(self, number: int) -> None:
        """Until this version has proved itself."""
        self.want(number)
        until(lambda: self.proven(f"{number}.0"), f"{number}.0 is proven: {self.status()}")
        self.last = number

    def look(self) -> None:
        """What serves without Git, whether it goes on from there, and whether all is in order then."""
        self.start()
        before = self.last
        if before >= 0:
            version = until(self.answer, "something serves")
            tell("@serves", version)
            if version not in (f"{before}.0", f"{before + 1}.0"):
                tell("@wrong", version, "serves, and this was proven:", before)
        until(self.status, "the agent answers")
        tell("@answers")
        self.deploy(before + 1)
        tell("@reached", before + 1)
        for one in (*self.left(), *self.journal(before), *self.damaged()):
            tell("@wrong", one)
        tell("@checked", self.last)

    def left(self) -> list[str]:
        """Temporary files, and instances nobody lives in."""
        cwds = set()
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    cwds.add(os.path.realpath(f"/proc/{entry}/cwd", strict=True))
                except OSError:
                    continue
        end = time.monotonic() + 20
        while time.monotonic() < end:
            found = list(self.leftovers(cwds))
            if not found:
                break
            time.sleep(1)
        return found

    def leftovers(self, cwds: set[str]) -> Iterator[str]:
        """The same, as it is now."""
        for directory, names, files in os.walk(DATA):
            inner = os.path.relpath(directory, DATA)
            if inner.startswith("store/trees/"):
                names.clear()
                continue
            for name in names + files:
                half = inner in ("store/tmp", "store/trash") or name[0] == "." or name.endswith(("~", ".tmp"))
                if half and name not in (".release", ".config"):
                    yield f"left: {inner}/{name}"
        for name in os.listdir(f"{DATA}/apps/web/instances"):
            if os.path.realpath(f"{DATA}/apps/web/instances/{name}") not in cwds:
                yield f"left: instance {name}"

    def journal(self, before: int) -> Iterator[str]:
        """What is told as under way, and a proven version that history does not know of."""
        connection = sqlite3.connect(f"file:{DATA}/journal.db?mode=ro", uri=True)
        end = time.monotonic() + 20  # the last lines are written a moment after they are told
        while (open_rows := list(self.under_way(connection))) and time.monotonic() < end:
            time.sleep(TICK)
        yield from open_rows
        query = "SELECT result FROM runs WHERE version = ?"
        results = [row[0] for row in connection.execute(query, (f"{before}.0",))]
        if before >= 0 and "succeeded" not in results:
            yield f"journal: {before}.0 was proven, and is told as {results}"
        (whole,) = connection.execute("PRAGMA integrity_check").fetchone()
        if whole != "ok":
            yield f"journal: {whole}"
        connection.close()

    def under_way(self, connection: sqlite3.Connection) -> Iterator[str]:
        """What is told as under way, as it is now."""
        for what, query in UNDER_WAY.items():
            for row in connection.execute(query).fetchall():
                yield f"journal: {what} {row}"

    def damaged(self) -> Iterator[str]:
        """Releases whose files are not what was unpacked."""
        releases = json.loads(ask(control(), "/store")[1])["releases"]
        for release in releases:
            body = json.dumps({"release": release["release"]})
            code, text = ask(control(), "/store/verify", body)
            if code != 200 or json.loads(text)["verdict"] != "ok":
                yield f"store: {code} {text}"


def main() -> None:
    """Until the power is cut."""
    tell("@booted")
    for line in subprocess.run(["dmesg"], capture_output=True, text=True).stdout.splitlines():
        if "EXT4-fs error" in line or "JBD2: " in line:
            tell("@wrong", line)
    guest = Guest(sys.argv[1], int(sys.argv[2]))
    guest.look()
    while True:
        guest.deploy(guest.last + 1)
        tell("@proven", guest.last)


if __name__ == "__main__":
    main()
