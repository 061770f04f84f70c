"""What each tier keeps from a hostile program, what it costs an ordinary one, and what is said of it."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.domain.errors import OperatorNeeded
from agent.domain.spec import LimitsSpec
from agent.keeper.confine import landlock, seccomp
from agent.keeper.confine.system import MACHINES, machine
from agent.process.cgroups import Cgroups
from agent.process.users import DYNAMIC_IDS
from tests.kit import intruder, sandbox
from tests.kit.box import Box
from tests.kit.operator import Operator
from tests.kit.ports import free_port
from tests.kit.tables import table

PYTHON = os.path.realpath(sys.executable)
HEALTH = {"tcp": "main", "interval": "100ms", "deadline": "30s", "probation": "300ms"}
INNER = {"tier": "strict", "namespaces": ["pid", "ipc"], "private": ["tmp", "dev"]}
COLUMNS: dict[str, Any] = {"none": "none", "standard": "standard", "strict": "strict", "strict, apart": INNER}
NEEDED = [  # what no tier may keep from a program
    "write into its own directories",
    "move files between its own directories",
    "make temporary files",
]


class Hosting(Box):
    """A box whose app is the hostile program."""

    def app_state(self, **parts: Any) -> dict[str, Any]:
        run = {"command": [PYTHON, "-S", "bin/intruder", str(self.port)], **parts}
        return {
            "version": "1.0", "run": run, "listen": self.port, "socket": "adopt", "dirs": {"state": "data"},
            "env": {"TARGETS": json.dumps(self.targets)}, "health": HEALTH,
        }  # fmt: skip

    targets: dict[str, Any]

    async def host(self, **parts: Any) -> None:
        """Commit the app; the agent runs already."""
        app = self.app_state(**parts)
        release = await self.commit({"schema": 1, "apps": {"web": {**app, **self.release_of()}}})
        await self.webhook(release)

    def release_of(self) -> dict[str, Any]:
        program = Path(intruder.__file__).read_bytes()
        url, digest = self.artifact("1.0", extra={"bin/intruder": program})
        return {"artifact": {"url": url, "checksum": f"sha256:{digest}", "strip": 1}}

    async def attempts(self) -> dict[str, str]:
        status, body = await self.get("/try")
        assert status == 200, body
        found: dict[str, str] = json.loads(body)
        return found


@pytest.fixture
async def hosting(tmp_path: Path) -> AsyncIterator[Hosting]:
    tmp_path.chmod(0o755)
    async with Hosting(tmp_path) as box:
        (tmp_path / "outside").mkdir()
        box.settings["--weakest-isolation"] = "none"
        await box.start()
        status = await box.status()
        column = MACHINES.index(machine())
        assert box.process is not None
        box.targets = {
            "secret": str(box.secret_file), "journal": str(box.data / "journal.db"),
            "agent": status["agent"]["pid"], "keeper": box.process.pid, "outside": str(tmp_path / "outside"),
            "release": "bin/web", "free": free_port(), "admin": box.admin,
            "init_module": seccomp.MACHINE_WIDE["init_module"][column],
        }  # fmt: skip
        yield box


@pytest.mark.parametrize("column", COLUMNS)
async def test_a_hostile_program_can_do_what_the_table_says(hosting: Hosting, column: str) -> None:
    sandbox.as_root()
    if landlock.version() < landlock.SCOPES_SINCE:
        pytest.skip("the table is about kernels with all of Landlock")
    isolation = COLUMNS[column]
    if column.startswith("strict"):
        isolation = {
            **(isolation if isinstance(isolation, dict) else {"tier": isolation}),
            "read": [sys.base_prefix],
        }
        isolation["connect"] = []
    await hosting.host(isolation=isolation)
    app = await hosting.proven("1.0")
    assert app["child"]["isolation"]["lacking"] == {}
    found = await hosting.attempts()
    rows = table("What each tier stops")
    assert set(rows) == set(found) - set(NEEDED)
    said = {attempt: row[column] for attempt, row in rows.items()}
    assert {a: "can" if found[a] == "done" else "stopped" for a in said} == said, found
    assert {need: found[need] for need in NEEDED} == dict.fromkeys(NEEDED, "done")


async def test_an_ordinary_app_is_in_the_standard_tier_and_everybody_is_told(hosting: Hosting) -> None:
    await hosting.host()
    app = await hosting.proven("1.0")
    assert app["child"]["isolation"]["tier"] == "standard"
    assert "no_new_privs" in app["child"]["isolation"]["in_force"]
    assert 'emptybox_app_isolation{app="web",part="calls",tier="standard"} 1.0' in await hosting.metrics()
    status = Path(f"/proc/{app['child']['pid']}/status").read_text()
    assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s2$", status, re.MULTILINE)


async def test_a_state_cannot_ask_for_less_than_the_settings_allow(box: Box) -> None:
    await box.deploy("1.0", run={"command": [sys.executable, "-S", "bin/web"], "isolation": "none"})
    await box.start()
    app = await box.app_is(last_failure__reason="IsolationNotAllowed")
    assert "--weakest-isolation none" in app["last_failure"]["remedy"]
    await box.deploy("1.1", push=True)
    await box.serving("1.1")


class Sandboxed(Box):
    """Whose sandbox lets nobody restrict files: as a container of an old runtime does."""

    def command(self, verb: str = "run") -> list[str]:
        return [*sandbox.refusing(f"{landlock.CREATE}={errno.EPERM}"), *super().command(verb)]


async def test_a_default_degrades_and_what_is_asked_for_fails_with_its_part(
    tmp_path: Path,
) -> None:
    async with Sandboxed(tmp_path) as box:
        await box.deploy("1.0")
        await box.start()
        app = await box.proven("1.0")
        assert app["child"]["isolation"]["lacking"]["ptrace"] == "there is no Landlock here"
        (told,) = [c for c in app["conditions"] if c["type"] == "Isolated"]
        assert (told["status"], told["reason"]) == ("False", "IsolationLacking")
        for tier in ("standard", "strict"):
            run = {"command": [sys.executable, "-S", "bin/web"], "isolation": tier}
            await box.deploy(f"2.0-{tier}", push=True, run=run)
            app = await box.app_is(wanted__version=f"2.0-{tier}", last_failure__reason="IsolationNotPossible")
            assert "ptrace of run.isolation cannot be had here" in app["last_failure"]["message"]
        await box.serving("1.0")


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user can enter; pytest's own may be closed by others that start."""
    directory = Path(tempfile.mkdtemp(prefix="emptybox-open-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


async def test_who_is_not_root_has_namespaces_by_one_of_users(open_path: Path) -> None:
    """The agent itself runs as nobody here; its app has its own /tmp, /dev and network."""
    sandbox.as_root()
    python = shutil.which("python3", path="/usr/bin:/usr/local/bin")
    if python is None:
        pytest.skip("there is no interpreter that everybody may start")
    os.chown(open_path, sandbox.NOBODY, sandbox.NOBODY)
    async with Box(open_path, settings={"--allow-exec": "web"}) as box:
        os.chmod(box.secret_file, 0o644)
        box.data.mkdir()
        os.chown(box.data, sandbox.NOBODY, sandbox.NOBODY)
        box.wrapper = sandbox.unprivileged()
        isolation = {"namespaces": ["pid", "net"], "private": ["tmp", "dev"]}
        run = {"command": [python, "-S", "bin/web"], "isolation": isolation}
        health = {"http": "/healthz", "interval": "100ms", "deadline": "30s", "probation": "300ms"}
        await box.deploy("1.0", run=run, health=health)
        await box.start()
        app = await box.proven("1.0")
        held = app["child"]["isolation"]["in_force"]
        assert {"net", "pid", "private dev", "private tmp"} <= set(held)
        await box.serving("1.0")
        seen = await Operator(box)("exec", "web", "sh", "-c", "id -u; ls -d /proc/2; sed 1,2d /proc/net/dev")
        assert (seen.code, seen.err) == (0, "")
        assert [line.split()[0] for line in seen.out.splitlines()] == [str(sandbox.NOBODY), "/proc/2", "lo:"]


# -- limits ----------------------------------------------------------------------------------------------


@pytest.fixture
def groups(tmp_path: Path) -> None:
    """Control groups that can be made here."""
    trial = Cgroups("trial", device=tmp_path)
    try:
        trial.make("trial", "x", LimitsSpec(memory=64 << 20))
    except OperatorNeeded as error:
        pytest.skip(str(error))
    trial.remove("trial", "x")


@pytest.mark.usefixtures("groups")
async def test_a_job_has_limits_and_an_isolation_of_its_own(hosting: Hosting) -> None:
    eat = [PYTHON, "-S", "-c", "'x' * (1 << 28)"]
    touch = ["sh", "-c", f"echo written; echo x > {hosting.directory / 'touched'}"]
    limited: dict[str, Any] = {"command": eat, "after_release": True, "limits": {"memory": "64M"}}
    kept: dict[str, Any] = {"command": touch, "after_release": True, "isolation": "strict"}
    jobs = {"limited": {"version": "1", "job": limited}, "kept": {"version": "1", "job": kept}}
    await hosting.webhook(await hosting.commit({"schema": 1, "apps": jobs}))
    app = await hosting.app_is("limited", job__last__result="failed")
    assert app["job"]["last"]["failure"]["reason"] == "LimitExceeded"
    assert "killed by the memory limit of 64M" in app["job"]["last"]["failure"]["message"]
    app = await hosting.app_is("kept", job__last__result="failed")
    assert app["job"]["last"]["code"] is not None
    assert not (hosting.directory / "touched").exists()


@pytest.mark.usefixtures("groups")
async def test_the_limit_of_memory_is_why_it_ended(hosting: Hosting) -> None:
    await hosting.host(limits={"memory": "64M", "pids": 64, "cpus": 1})
    await hosting.proven("1.0")
    metrics = await hosting.metrics()
    assert re.search(r'^emptybox_app_limited_memory_bytes{app="web"} [1-9]', metrics, re.MULTILINE)
    await hosting.get("/eat")
    await hosting.app_is(last_failure__reason="LimitExceeded")
    app = await hosting.app()
    assert app["last_failure"]["message"] == "version 1.0 was killed by the memory limit of 64M"
    await hosting.app_is(state="running", serving=True)
    metrics = await hosting.metrics()
    assert re.search(r'^emptybox_app_memory_kills_total{app="web"} [1-9]', metrics, re.MULTILINE)


async def test_the_rest_of_what_a_process_is_given_is_as_written(hosting: Hosting) -> None:
    await hosting.host(umask="0077", nice=7, oom_score_adj=300, rlimits={"open_files": 300, "core": "0"})
    app = await hosting.proven("1.0")
    proc = Path(f"/proc/{app['child']['pid']}")
    limits = (proc / "limits").read_text()
    assert re.search(r"^Max open files\s+300\s+300\s", limits, re.MULTILINE)
    assert re.search(r"^Max core file size\s+0\s", limits, re.MULTILINE)
    assert (proc / "oom_score_adj").read_text() == "300\n"
    assert os.getpriority(os.PRIO_PROCESS, app["child"]["pid"]) == 7
    assert re.search(r"^Umask:\s0077$", (proc / "status").read_text(), re.MULTILINE)


async def test_a_limit_above_the_agents_own_is_refused_with_its_name(hosting: Hosting) -> None:
    await hosting.stop()
    hosting.wrapper = ["sh", "-c", 'ulimit -n 1000; exec "$@"', "sh"]
    await hosting.start()
    await hosting.host(rlimits={"open_files": 5000})
    app = await hosting.app_is(last_failure__reason="LimitsNotPossible")
    assert "RLIMIT_NOFILE" in app["last_failure"]["message"]
    assert "hard limit is 1000" in app["last_failure"]["message"]


async def test_a_dynamic_user_is_nobody_else_and_stays_the_same(open_path: Path) -> None:
    sandbox.as_root()
    async with Box(open_path) as box:
        box.secret_file.chmod(0o600)
        script = f"(id -u; cat {box.secret_file}) > data/$EMPTYBOX_VERSION; exec sleep 1000"
        run = {"command": ["sh", "-c", script], "user": "dynamic"}
        parts: dict[str, Any] = {"listen": None, "socket": None, "run": run, "dirs": {"state": "data"}}
        parts["health"] = {"alive": "100ms", "probation": "100ms"}
        said = {}
        for version in ("1.0", "2.0"):
            await box.deploy(version, push=version != "1.0", **parts)
            if version == "1.0":
                await box.start()
            await box.proven(version)
            said[version] = (box.data / "apps/web/dirs/state" / version).read_text()
        assert said["1.0"] == said["2.0"] and int(said["1.0"]) in DYNAMIC_IDS
        assert (box.data / "apps/web/dirs/state").stat().st_uid == int(said["1.0"])
