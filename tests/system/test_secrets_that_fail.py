"""Secrets that are shouted, rotated badly, missing or late: what the whole agent makes of them."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import aiohttp

from tests.kit.box import Box

VALUE = "correct horse/battery+staple"
FORMS = (VALUE, "correct%20horse", "correct+horse", "Y29ycmVjdCBob3JzZS9iYXR0ZXJ5K3N0YXBsZQ")
PAGES = (
    *("/status", "/history", "/metrics", "/maintenance", "/", "/readyz", "/healthz", "/plan", "/doctor"),
    *("/logs?app=web", "/logs?app=web&times=1"),
)
ALIVE = {"alive": "100ms", "interval": "50ms", "probation": "300ms"}
WORKER: dict[str, Any] = {
    "listen": None,
    "socket": None,
    "artifact": None,
    "health": ALIVE,
    "secrets": {"PASSWORD": {"file": "password"}},
    "env": {"PASSWORD": "{{ secrets.PASSWORD }}"},
    "dirs": {"state": "data"},
    "run": {"command": ["sh", "-c", 'printf "%s\\n" "$PASSWORD" >> data/seen; exec sleep 10000']},
}


def roots(box: Box, value: str = VALUE) -> Path:
    """The secret's file; the agent looks often."""
    root = box.directory / "secrets"
    root.mkdir()
    (root / "password").write_text(f"{value}\n")
    box.settings |= {"--secret-root": str(root), "--poll": "1s"}
    return root / "password"


def seen(box: Box) -> list[str]:
    """What the worker was started with, one a start."""
    path = box.data / "apps/web/dirs/state/seen"
    return path.read_text().splitlines() if path.exists() else []


async def pages(box: Box) -> dict[str, str]:
    """What the agent answers, as JSON and for people."""
    found = {}
    async with aiohttp.ClientSession(
        connector=aiohttp.UnixConnector(str(box.data / "agent.sock"))
    ) as session:
        for page in PAGES:
            for kind in ("application/json", "text/html", "text/plain"):
                async with session.get(f"http://agent{page}", headers={"Accept": kind}) as answer:
                    found[f"{page} {kind}"] = await answer.text()
    return found


async def command(box: Box, *words: str) -> str:
    """What a verb of the command line writes."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "agent", *words, "--socket", str(box.data / "agent.sock"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode()


def of_the_agent(box: Box) -> str:
    """The agent's own lines: those of apps begin with their names."""
    return "\n".join(line for line in box.output if not line.startswith(("web | ", "web/")))


async def test_a_secret_that_an_app_shouts_stands_nowhere_in_what_the_agent_says(box: Box) -> None:
    roots(box)
    parts = WORKER | {
        "files": [
            {
                "content": "{{ version }}\n{{ secrets.PASSWORD }}\n{{ secrets.PASSWORD | upper }}\n",
                "target": "etc/web.conf",
                "check": ["sh", "-c", "cat etc/web.conf; [ $EMPTYBOX_VERSION != 2 ]"],
            }
        ],
    }
    await box.deploy("1", **parts)
    await box.start()
    await box.proven("1")
    assert seen(box) == [VALUE]
    commit = await box.deploy("2", **parts)
    status, answer = await box.webhook(commit, wait=True)
    assert (status, answer["result"]) == (409, "failed")
    failure = (await box.app())["last_failure"]
    assert "***" in failure["log"]
    await box.deploy("3", **parts | {"run": {"command": ["sh", "-c", 'echo "it is $PASSWORD" >&2; exit 3']}})
    await command(box, "sync")
    await box.app_is(current__version="1", last_failure__reason="ChildExited")
    texts = await pages(box)
    for verb in ("status", "history", "plan", "logs"):
        texts[verb] = await command(box, verb, *(["web"] if verb == "logs" else []))
    texts |= {"answer": str(answer), "log": of_the_agent(box)}
    with sqlite3.connect(box.data / "journal.db") as journal:
        texts["journal"] = "\n".join(journal.iterdump())
    assert "***" in texts["/status application/json"]
    found = [(place, form) for place, text in texts.items() for form in FORMS if form in text]
    assert found == []
    assert VALUE.upper() not in texts["plan"] + texts["/plan application/json"]


async def test_a_rotated_secret_reloads_an_app_that_asks_for_no_more(box: Box) -> None:
    password = roots(box)
    loop = 'printf x >> data/seen; trap "cat etc/p >> data/seen" USR1; while :; do sleep 0.05; done'
    await box.deploy(
        "1",
        **WORKER
        | {
            "env": None,
            "run": {"command": ["sh", "-c", loop], "reload": {"signal": "USR1"}},
            "files": [{"content": "{{ secrets.PASSWORD }}", "target": "etc/p", "on_change": "reload"}],
        },
    )
    await box.start()
    await box.proven("1")
    password.write_text("the second one\n")

    async def reloaded() -> bool:
        return seen(box) == ["xthe second one"]

    await box.until(reloaded)


async def test_a_bad_rotation_is_rolled_back_with_the_old_secret(box: Box) -> None:
    password = roots(box)
    run = ["sh", "-c", f"case $PASSWORD in *horse*) {WORKER['run']['command'][2]};; *) exit 1;; esac"]
    await box.deploy("1", **WORKER | {"run": {"command": run}})
    await box.start()
    await box.proven("1")
    password.write_text("not what the database knows\n")
    await box.app_is(last_failure__reason="ChildExited", state="degraded")
    assert seen(box)[0] == VALUE
    assert (await box.app())["current"]["spec"] == (await box.app())["good"]["spec"]
    password.write_text(f"{VALUE}\n")
    await box.until(lambda: diverged_no_more(box))


async def diverged_no_more(box: Box) -> bool:
    app = await box.app()
    return bool(app["wanted"]["spec"] == app["current"]["spec"])


async def test_a_missing_secret_holds_up_its_app_and_no_other_until_it_is_there(box: Box) -> None:
    password = roots(box)
    password.unlink()
    state = box.state("1", **WORKER)
    state["apps"]["other"] = {"version": "1", "run": {"command": ["sleep", "10000"]}, "health": ALIVE}
    await box.commit(state)
    await box.start()
    await box.app_is("other", state="running")
    app = await box.app_is(last_failure__reason="SecretMissing")
    assert "secret PASSWORD: password is not there" in app["last_failure"]["message"]
    password.write_text(VALUE)
    await box.proven("1")
    assert seen(box) == [VALUE]


async def test_an_agent_that_was_killed_masks_what_it_never_read_itself(box: Box) -> None:
    password = roots(box)
    shout = ["sh", "-c", 'while :; do echo "it is $PASSWORD"; sleep 0.05; done']
    await box.deploy("1", **WORKER | {"run": {"command": shout}})
    await box.start()
    await box.proven("1")
    password.unlink()
    pid = await box.agent_pid()
    os.kill(pid, signal.SIGKILL)

    async def next_one() -> bool:
        try:
            return await box.agent_pid() != pid
        except aiohttp.ClientError:
            return False

    await box.until(next_one)
    await box.app_is(state="running", current__version="1")
    texts = await pages(box)
    assert "it is ***" in texts["/logs?app=web text/plain"]
    assert [place for place, text in texts.items() if VALUE in text] == []
