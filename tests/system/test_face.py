"""What the real agent shows, to whom, and what it never shows."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.kit.box import SECRET, Box
from tests.kit.operator import Operator, run
from tests.kit.ports import free_port

QUICK: dict[str, Any] = {"http": "/healthz", "interval": "50ms", "deadline": "5s", "probation": "200ms"}
PASSWORD = "correct-horse-battery"
TOKEN = "an-unguessable-control-token"


def exec_probe(*command: str) -> dict[str, Any]:
    return {**{name: value for name, value in QUICK.items() if name != "http"}, "exec": list(command)}


async def ask(
    url: str, method: str = "GET", accept: str = "*/*", token: str = "", data: Any = None
) -> tuple[int, str]:
    headers = {"Accept": accept, **({"Authorization": f"Bearer {token}"} if token else {})}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(method, url, headers=headers, json=data) as answer,
    ):
        return answer.status, await answer.text()


async def heard(box: Box, until: str) -> list[dict[str, Any]]:
    """Facts of /events up to the first of that name with a success."""
    facts = []
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.get(box.url("/events")) as stream,
    ):
        async for line in stream.content:
            if line.startswith(b"data: "):
                facts.append(json.loads(line[6:]))
                if facts[-1]["fact"] == until and facts[-1]["result"] == "succeeded":
                    return facts
    return facts


async def test_a_deploy_is_told_by_status_events_metrics_and_history(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    listening = asyncio.ensure_future(heard(box, "SyncFinished"))
    commit = await box.deploy("2.0", health=QUICK, push=True)
    facts = await listening
    app = await box.proven("2.0")

    assert {
        "state", "current", "good", "wanted", "run", "last_run", "conditions", "last_failure", "child",
        "gate", "serving",
    } <= set(app)  # fmt: skip
    assert set(app["current"]) >= {"version", "commit", "digest", "since"}
    assert (app["current"]["commit"], app["run"], app["gate"]) == (commit, None, "open")
    assert [s["name"] for s in app["last_run"]["steps"]] == [
        "fetch", "verify", "unpack", "render", "check", "start", "probe", "switch", "drain",
    ]  # fmt: skip
    size = (box.artifacts / "web-2.0-good.tar.gz").stat().st_size
    assert app["last_run"]["steps"][0]["progress"] == {"done": size, "total": size, "unit": "bytes"}

    names = [fact["fact"] for fact in facts]
    told = ["TriggerHeard", "SyncStarted", "SyncResolved", "AppWanted", "RunStarted", "StepStarted"]
    assert [names.index(name) for name in told] == sorted(names.index(name) for name in told)
    assert [f["step"] for f in facts if f["fact"] == "StepFinished"][-2:] == ["switch", "drain"]
    assert {f["result"] for f in facts if f["fact"] == "RunFinished"} == {"probation", "succeeded"}

    metrics = await box.metrics()
    assert 'emptybox_app_up{app="web"} 1.0' in metrics
    assert 'emptybox_runs_total{app="web",result="succeeded"} 2.0' in metrics
    if (promtool := shutil.which("promtool")) is None:
        assert not os.environ.get("CI"), "CI must have promtool"
    else:
        checker = await asyncio.create_subprocess_exec(
            promtool, "check", "metrics", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, problems = await checker.communicate(metrics.encode())
        assert (checker.returncode, problems) == (0, b"")

    before = await box.history()
    await box.stop()
    await box.start()
    await box.proven("2.0")
    assert await box.history() == before


async def test_readiness_follows_the_app_and_ends_before_it_does(box: Box) -> None:
    box.settings["--shutdown-delay"] = "600ms"
    gate = box.directory / "gate"
    await box.deploy("1.0", health=exec_probe("test", "-e", str(gate)))
    await box.start()
    await box.app_is(run__phase="probe")
    status, text = await ask(box.url("/readyz"))
    assert (status, "web" in text) == (503, True)
    status, text = await ask(box.url("/maintenance"), accept="text/html")
    assert (status, "<html" in text) == (503, True)
    status, text = await ask(box.url("/maintenance"), accept="application/json")
    assert (status, json.loads(text)["status"]) == (503, 503)
    gate.touch()
    await box.proven("1.0")
    assert await ask(box.url("/readyz")) == (200, "ready\n")
    assert (await ask(box.url("/maintenance")))[0] == 204
    assert await ask(box.url("/healthz")) == (200, "alive\n")

    assert box.process is not None
    box.process.terminate()

    async def unready() -> bool:
        return (await ask(box.url("/readyz")))[0] == 503

    await box.until(unready)
    assert await box.get() == (200, "1.0\n")
    assert await box.ended() == 0


async def test_forms_for_people_and_programs(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    status, text = await ask(box.url("/status"))
    assert (status, json.loads(text)["apps"]["web"]["state"]) == (200, "running")
    assert "web: running" in (await ask(box.url("/status"), accept="text/plain"))[1]
    assert "<html" in (await ask(box.url("/"), accept="text/html"))[1]
    status, text = await ask(box.url("/nothing"))
    assert (status, json.loads(text)["status"]) == (404, 404)


async def test_control_over_tcp_needs_the_token_and_the_socket_is_its_owners(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    status, text = await ask(box.url("/sync"), "POST")
    assert (status, json.loads(text)["reason"]) == (403, "ControlClosed")
    await box.stop()

    token = box.directory / "token"
    token.write_text(f"{TOKEN}\n")
    box.settings["--control-token-file"] = str(token)
    await box.start()
    await box.proven("1.0")
    for path in ("/sync", "/rollback?app=web", "/retry", "/pause", "/resume"):
        assert (await ask(box.url(path), "POST"))[0] == 401
        assert (await ask(box.url(path), "POST", token="wrong"))[0] == 401
    assert (await ask(box.url("/logs?app=web")))[0] == 401
    assert (await ask(box.url("/plan")))[0] == 401

    async def said() -> bool:
        lines = (await ask(box.url("/logs?app=web"), token=TOKEN))[1].splitlines()
        return lines == ["version 1.0 starts", "version 1.0 ends", "version 1.0 starts"]

    await box.until(said)
    status, text = await ask(box.url("/sync?wait=1"), "POST", token=TOKEN)
    assert (status, json.loads(text)["result"]) == (200, "unchanged")
    status, text = await ask(box.url("/pause"), "POST", token=TOKEN, data={"message": "freeze"})
    assert (status, (await box.status())["paused"]["message"]) == (200, "freeze")
    assert (await ask(box.url("/resume?wait=1"), "POST", token=TOKEN))[0] == 200
    token.write_text("another-one")
    assert (await ask(box.url("/sync"), "POST", token=TOKEN))[0] == 401

    mode = (box.data / "agent.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_the_webhook_listener_serves_deliveries_and_nothing_else(box: Box) -> None:
    port = free_port()
    box.settings["--webhook"] = f"127.0.0.1:{port}"
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    for path in ("/", "/status", "/metrics", "/healthz", "/readyz", "/events", "/history", "/logs?app=web"):
        assert (await ask(f"http://127.0.0.1:{port}{path}"))[0] == 404
    assert (await ask(f"http://127.0.0.1:{port}/sync", "POST"))[0] == 404
    box.webhooks = port
    await box.deploy("2.0", health=QUICK, push=True)
    await box.proven("2.0")


async def test_secrets_stay_out_of_everything_the_agent_says(box: Box) -> None:
    box.forge.logins = {"robot": PASSWORD}
    token = box.directory / "token"
    token.write_text(TOKEN)
    box.settings["--repo"] = box.repository.url.replace("://", f"://robot:{PASSWORD}@")
    box.settings["--control-token-file"] = str(token)
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    echo = ["sh", "-c", f"echo the secrets are {SECRET.decode()} {TOKEN} {PASSWORD}; exit 1"]
    commit = await box.deploy("2.0", health=QUICK, tasks={"leak": {"command": echo}})
    assert (await ask(box.url("/sync"), "POST", token=TOKEN))[0] == 202
    await box.webhook(commit)
    await box.app_is(last_failure__reason="TaskFailed", run=None)
    box.forge.logins = {"robot": "another"}
    await ask(box.url("/sync?wait=1"), "POST", token=TOKEN)

    operator = Operator(box)
    said = [
        await ask(box.url(path), token=TOKEN, accept=accept)
        for path in ("/status", "/", "/history", "/metrics", "/plan", "/logs?app=web")
        for accept in ("*/*", "text/html")
    ]
    said += [
        (told.code, told.out + told.err)
        for told in (
            await operator("status"),
            await operator("history", "--steps"),
            await operator("config", *box.command()[5:]),
            await operator("config", "--json", *box.command()[5:]),
        )
    ]
    said += [(0, line) for line in box.output if " | " not in line]  # the keeper passes apps' lines through
    assert sum("GitAuth" in text for _, text in said) > 2
    for _, text in said:
        assert SECRET.decode() not in text
        assert PASSWORD not in text
        assert TOKEN not in text


async def test_the_log_is_json_when_asked(box: Box) -> None:
    box.settings["--log-format"] = "json"
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    await box.stop()
    lines = [line for line in box.output if not line.startswith(("web | ", "keeper | "))]
    told = [json.loads(line) for line in lines]
    assert all({"at", "level", "message"} <= set(line) for line in told)
    assert any("version 1.0 serves" in line["message"] for line in told)


async def test_a_second_agent_on_the_same_data_names_the_first_and_leaves_it_alone(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    await box.start()
    await box.proven("1.0")
    agent = await box.agent_pid()
    words = [word for word in box.command()[4:] if not word.startswith("--admin")]
    told = await run(*words, f"--admin=127.0.0.1:{free_port()}")
    assert told.code == 2
    assert f"another agent (pid {agent}) uses this data directory" in told.err
    assert await box.get() == (200, "1.0\n")
    assert await box.agent_pid() == agent


async def test_a_taken_admin_port_is_told_with_its_remedy(box: Box) -> None:
    await box.deploy("1.0", health=QUICK)
    box.settings["--admin"] = f"127.0.0.1:{box.forge.url.rpartition(':')[2]}"
    told = await run(*box.command()[4:])
    assert told.code == 2
    assert (
        "cannot listen: Address already in use (give another HOST:PORT, or end the program that has it)"
        in told.err
    )


async def test_two_terms_end_an_app_that_will_not_end(box: Box) -> None:
    await box.deploy("1.0", "deaf", health=QUICK, run=None)
    stubborn = Path(box.directory / "stubborn.py")
    stubborn.write_text(
        "import signal, time\nsignal.signal(15, 1)\nprint('deaf', flush=True)\ntime.sleep(99)\n"
    )
    state = box.state("1.0", listen=None, socket=None, health={"alive": "50ms", "probation": "0s"})
    state["apps"]["web"]["run"] = {
        "command": ["python3", str(stubborn)],
        "stop": {"grace": "60s"},
    }
    await box.commit(state)
    await box.start()
    pid = (await box.proven("1.0"))["child"]["pid"]

    async def deaf() -> bool:
        return "web | deaf" in box.output

    await box.until(deaf)
    assert box.process is not None
    box.process.terminate()

    async def asked() -> bool:
        return any("shutting down" in line for line in box.output)

    await box.until(asked)
    box.process.send_signal(signal.SIGTERM)
    assert await box.ended() == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_settings_that_are_wrong_are_named_all_at_once_with_exit_code_2() -> None:
    for verb in ("run", "once"):
        told = await run(verb, "--admin", "nowhere", "--poll", "5", "--nonsense", "--label", "x")
        assert told.code == 2
        for word in ("--admin", "--poll", "--nonsense", "--label", "--repo"):
            assert word in told.err
        assert "Traceback" not in told.err
