"""Apps of every shape on the real agent: flat form, several apps, plain files, workers, ports, users."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit.artifact_server import ArtifactServer
from tests.kit.box import Box, archive
from tests.kit.operator import Operator
from tests.kit.programs import plain

QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "200ms"}
ALIVE: dict[str, Any] = {"alive": "50ms", "probation": "100ms"}
LOOP = "while :; do sleep 0.05; done\n"


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def lines(box: Box, prefix: str) -> list[str]:
    """What an app wrote."""
    head = f"{prefix} | "
    told = [line.removeprefix(head) for line in box.output if line.startswith(head)]
    return [line for line in told if line != "Terminated"]  # what a shell says of its own children


async def ask(port: int, path: str = "/", accept: str = "*/*") -> tuple[int, str, str]:
    """Status, content type and text; status 0 when nobody answers."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
            session.get(f"http://127.0.0.1:{port}{path}", headers={"Accept": accept}) as answer,
        ):
            return answer.status, answer.content_type, await answer.text()
    except aiohttp.ClientError as error:
        return 0, "", str(error)


async def test_the_flat_form_deploys_and_restarts_on_a_changed_configuration_or_version(
    box: Box, tmp_path: Path
) -> None:
    async with ArtifactServer(made(tmp_path / "dist")) as server:
        program = "#!/bin/sh\ntrap 'exit 0' TERM\necho program {} says $(cat app.config)\n" + LOOP

        def state(version: str, name: str, **more: str) -> dict[str, Any]:
            url = f"{server.url}/app-{{{{ version }}}}"
            return {"version": version, "distro-url": url, "vars": {"name": name}, **more}

        async def put(state: dict[str, Any]) -> None:
            files = {"state.json": json.dumps(state), "templates/app": "hello {{ vars.name }}"}
            await box.repository.put(files)

        server.put("app-1", program.format(1).encode())
        await put(state("1", "Anna"))
        await box.start()
        app = await box.app_is("app", state="probation", current__version="1")
        assert lines(box, "app") == ["program 1 says hello Anna"]
        assert app["current"]["digest"].startswith("sha256:")

        await put(state("1", "Bert"))
        assert (await Operator(box)("sync", "--no-wait")).code == 0
        await box.until(lambda: said(box, "app", "program 1 says hello Bert"))

        digest = hashlib.sha256(program.format(2).encode()).hexdigest()
        server.put("app-2", program.format(2).encode())
        await put(state("2", "Bert", checksum=f"sha256:{digest}"))
        assert (await Operator(box)("sync", "--no-wait")).code == 0
        await box.until(lambda: said(box, "app", "program 2 says hello Bert"))
        app = await box.app_is("app", current__version="2", current__digest=f"sha256:{digest}")
        assert [(s.method, s.path, s.status) for s in await server.requests(2)][-1] == (
            "GET", "/app-2", 200,
        )  # fmt: skip


async def said(box: Box, app: str, line: str) -> bool:
    return line in lines(box, app)


async def test_a_program_under_an_unchanged_name_is_fetched_again_only_when_it_changed(
    box: Box, tmp_path: Path
) -> None:
    async with ArtifactServer(made(tmp_path / "dist")) as server:
        server.put("app", f"#!/bin/sh\necho first\n{LOOP}".encode())
        state = {"version": "1", "distro-url": f"{server.url}/app"}
        await box.repository.put({"state.json": json.dumps(state)})
        await box.start()
        await box.app_is("app", state="probation")
        await box.repository.put({"state.json": json.dumps({**state, "version": "2"})})
        await Operator(box)("sync", "--no-wait")
        await box.app_is("app", current__version="2")
        assert [s.status for s in await server.requests(2)] == [200, 304]
        server.put("app", f"#!/bin/sh\necho second\n{LOOP}".encode())
        await box.repository.put({"state.json": json.dumps({**state, "version": "3"})})
        await Operator(box)("sync", "--no-wait")
        await box.until(lambda: said(box, "app", "second"))
        assert lines(box, "app") == ["first", "second"]


async def test_hosts_take_their_share_of_a_state_that_extends_another(box: Box, tmp_path: Path) -> None:
    async with ArtifactServer(made(tmp_path / "dist")) as server:
        data = archive("1.0")
        server.put("1.0/web.tar.gz", data)
        server.put("1.0/SHA256SUMS", f"{hashlib.sha256(data).hexdigest()}  web.tar.gz\n".encode())
        web = {
            "version": "1.0",
            "artifact": {
                "url": f"{server.url}/{{{{ version }}}}/web.tar.gz",
                "checksum": f"sha256:{server.url}/{{{{ version }}}}/SHA256SUMS",
                "strip": 1,
            },
            "run": {"command": [sys.executable, "-S", "bin/web"]},
            "listen": box.port,
            "socket": "fd",
            "health": QUICK,
            "env": {"GREETING": "{{ vars.greeting }} from {{ host.labels.env }}"},
        }
        worker = {
            "version": "7",
            "artifact": plain(box, "worker", f"#!/bin/sh\necho working\n{LOOP}", "sha512"),
            "run": {"command": ["bin/worker"]},
            "health": ALIVE,
            "only": {"env": ["prod", "staging"]},
        }
        base = {"schema": 1, "vars": {"greeting": "hello"}, "apps": {"web": web, "worker": worker}}
        prod = {
            "extends": "../base.yaml",
            "vars": {"greeting": "hallo"},
            "apps": {"testing": {**worker, "only": {"env": "test"}}},
        }
        box.settings["--label"] = "env=prod"
        box.settings["--path"] = "prod/state.json"
        await box.repository.put({"base.yaml": json.dumps(base), "prod/state.json": json.dumps(prod)})
        await box.start()
        app = await box.proven("1.0")
        assert app["current"]["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert "GREETING=hallo from prod" in (await box.get("/environment"))[1]
        app = await box.app_is("worker", state="running")
        assert app["current"]["digest"].startswith("sha512:")
        assert lines(box, "worker") == ["working"]
        assert set((await box.status())["apps"]) == {"web", "worker"}
        told = await Operator(box)("sync", "--json")
        assert (told.code, told.json["result"], told.json["runs"]) == (0, "unchanged", [])


async def test_what_a_program_is_given_and_what_outlives_it(box: Box) -> None:
    parts: dict[str, Any] = {
        "health": QUICK,
        "dirs": {"state": "data", "cache": "tmp/cache", "logs": "log"},
        "env": {"LOG_LEVEL": "info", "VERSION": "{{ version }}"},
        "files": [
            {"content": "port = 1\n", "target": "etc/a.conf", "check": ["grep", "-q", "port", "{{ target }}"]}
        ],
        "hooks": {"init": ["sh", "-c", "echo init ran >> data/log"]},
        "tasks": {
            "seed": {"command": ["sh", "-c", "echo seeded {{ version }} >> $STATE_DIRECTORY/log"]},
            "later": {"after": ["switch"], "command": ["sh", "-c", "echo told {{ version }} >> data/log"]},
        },
    }
    box.settings["--pass-env"] = "PASSED"
    await box.deploy("1.0", **parts)
    await box.start(environment={"PASSED": "through", "KEPT": "back"})
    await box.proven("1.0")
    given = dict(line.split("=", 1) for line in (await box.get("/environment"))[1].splitlines())
    root = box.data / "apps/web/dirs"
    assert given["STATE_DIRECTORY"] == str(root / "state")
    assert given["CACHE_DIRECTORY"] == str(root / "cache")
    assert given["XDG_CACHE_HOME"] == str(root / "cache")
    assert (given["SHIV_ROOT"], given["PEX_ROOT"]) == (str(root / "cache/shiv"), str(root / "cache/pex"))
    assert given["LOGS_DIRECTORY"] == str(root / "logs")
    assert (given["LOG_LEVEL"], given["VERSION"], given["PORT"]) == ("info", "1.0", str(box.port))
    assert (given["PASSED"], given["LISTEN_FDS"], given["EMPTYBOX_APP"]) == ("through", "1", "web")
    assert "KEPT" not in given
    assert await box.get("/file/etc/a.conf") == (200, "port = 1\n")

    await box.deploy("2.0", push=True, **parts)
    await box.proven("2.0")
    assert await box.get("/file/data/log") == (
        200,
        "init ran\nseeded 1.0\ntold 1.0\nseeded 2.0\ntold 2.0\n",
    )

    bad = {**parts, "files": [{**parts["files"][0], "content": "nothing\n"}]}
    status, answer = await box.webhook(await box.deploy("3.0", **bad), wait=True)
    assert (status, answer["failure"]["reason"]) == (409, "CheckFailed")
    assert await box.get() == (200, "2.0\n")
    failing = {**parts, "tasks": {"seed": {"command": ["sh", "-c", "echo no seed; exit 4"]}}}
    status, answer = await box.webhook(await box.deploy("4.0", **failing), wait=True)
    assert (status, answer["failure"]["reason"], answer["failure"]["log"]) == (
        409, "TaskFailed", ["no seed"],
    )  # fmt: skip
    assert "exit code 4" in answer["failure"]["message"]
    assert await box.get() == (200, "2.0\n")


async def test_a_stock_program_that_binds_its_port_itself_gets_the_page_in_between(box: Box) -> None:
    def server(version: str, delay: float, **parts: Any) -> dict[str, Any]:
        command = f"sleep {delay}; exec {sys.executable} -m http.server -d www $PORT"
        found: dict[str, Any] = box.state(
            version,
            run={"command": ["sh", "-c", command], "stop": {"signal": "INT"}},
            artifact=None,
            files=[{"content": f"version {version}\n", "target": "www/index.html"}],
            socket=None,
            swap="restart",
            health={"tcp": str(box.port), "interval": "50ms", "deadline": "10s", "probation": "200ms"},
            **parts,
        )
        return found

    page = {"page": "templates/page.html.j2", "hold": "0s", "retry_after": "7s"}
    template = (
        "<html>{% if percent is not none %}{{ percent }}{% endif %}{{ phase }}{{ detail }}{{ elapsed }}"
    )
    template += " again in {{ refresh }}</html>"
    await box.commit(server("1", 0, maintenance=page), {"templates/page.html.j2": template})
    await box.start()
    await box.proven("1")
    assert await box.get() == (200, "version 1\n")
    await box.webhook(await box.commit(server("2", 0.7, maintenance=page)))
    seen: set[tuple[int, str]] = set()

    async def replaced() -> bool:
        for accept in ("text/html", "application/json"):
            status, kind, text = await ask(box.port, accept=accept)
            if status == 503:
                seen.add((status, kind))
                if kind == "text/html":
                    assert text.startswith("<html>")
                    assert "again in" in text, "the app's own page is shown"
                else:
                    assert json.loads(text)["retry_after"] == 7
            if text == "version 2\n":
                return True
        return False

    await box.until(replaced)
    await box.proven("2")
    assert seen == {(503, "text/html"), (503, "application/json")}


async def test_a_worker_without_a_port_is_restarted_stopped_and_probed_by_command(box: Box) -> None:
    program = "#!/bin/sh\ntrap 'echo bye VERSION; exit 0' TERM\necho hi VERSION\ntouch alive-VERSION\n" + LOOP

    async def deploy(version: str, health: dict[str, Any]) -> str:
        artifact = plain(box, f"w-{version}", program.replace("VERSION", version))
        run = {"command": ["bin/web"]}
        return await box.deploy(version, listen=None, socket=None, artifact=artifact, run=run, health=health)

    probe = {"interval": "50ms", "deadline": "2s", "probation": "200ms"}
    await deploy("1", {**probe, "exec": ["test", "-e", "alive-1"]})
    await box.start()
    app = await box.proven("1")
    assert (app["gate"], app["serving"]) == (None, True)
    await deploy("2", {**probe, "exec": ["test", "-e", "alive-2"]})
    assert (await Operator(box)("sync")).code == 0
    assert lines(box, "web") == ["hi 1", "bye 1", "hi 2"]

    await deploy("3", {**probe, "deadline": "300ms", "exec": ["sh", "-c", "echo not yet; exit 1"]})
    told = await Operator(box)("sync")
    assert told.code == 1
    assert "rolled-back" in told.out
    app = await box.app_is(current__version="2", state="degraded", run=None)
    assert app["last_failure"]["reason"] == "ProbeFailed"
    assert lines(box, "web")[-2:] == ["bye 3", "hi 2"]


@pytest.mark.root
async def test_programs_run_as_the_users_that_the_settings_allow_and_no_others(box: Box) -> None:
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "CI must run these as root"
        pytest.skip("needs root")
    nobody = pwd.getpwnam("nobody")
    for directory in (box.directory, *box.directory.parents):
        if directory == Path("/tmp"):
            break
        directory.chmod(0o755)
    program = f"#!/bin/sh\nid -un\ntouch data/mine && cat etc/secret.conf\n{LOOP}"
    parts: dict[str, Any] = {
        "listen": None,
        "socket": None,
        "artifact": plain(box, "who", program),
        "files": [{"content": "for nobody\n", "target": "etc/secret.conf", "mode": "0400"}],
        "dirs": {"state": "data"},
        "run": {"command": ["bin/web"], "user": "nobody"},
        "health": ALIVE,
        "hooks": {"init": ["sh", "-c", "id -un > data/init"]},
    }
    await box.deploy("1", **parts)
    await box.start()
    app = await box.app_is(last_failure__reason="UserNotAllowed")
    assert "--allow-user nobody" in app["last_failure"]["remedy"]
    await box.stop()

    box.settings["--allow-user"] = "nobody"
    await box.start()
    await box.proven("1")
    assert lines(box, "web") == ["nobody", "for nobody"]
    state = box.data / "apps/web/dirs/state"
    assert {(state / name).stat().st_uid for name in ("mine", "init")} == {nobody.pw_uid}
    assert (state / "init").read_text() == "nobody\n"
