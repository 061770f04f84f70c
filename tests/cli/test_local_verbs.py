"""What needs no agent: help, settings, completion, and being told that no agent answers."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.cli.exit_codes import OK, UNREACHABLE, USAGE
from agent.cli.main import VERBS, emptybox
from agent.config import SETTINGS
from tests.cli.stage import run_here

HERE = [verb for verb in VERBS if verb != "demo"]


@pytest.mark.parametrize("verb", HERE)
def test_the_help_of_every_verb_has_an_example_of_itself(verb: str) -> None:
    answer = run_here(verb, "--help")
    assert answer.code == OK
    assert f"emptybox {verb}" in answer.out.partition("Example:")[2]


def test_the_groups_help_names_every_verb_and_the_exit_codes() -> None:
    answer = run_here("--help")
    assert all(f"\n  {verb} " in answer.out for verb in HERE)
    assert "3 no agent answers" in " ".join(answer.out.split())


@pytest.mark.parametrize("verb", ["run", "once", "config"])
def test_the_help_of_run_names_every_setting_and_its_variable(verb: str) -> None:
    out = run_here(verb, "--help").out
    assert "--config FILE" in out
    for setting in SETTINGS:
        assert f"{setting.flag} {setting.metavar}" in out
        assert f"[{setting.variable}]" in out


def test_the_version_is_that_of_the_distribution() -> None:
    assert run_here("--version").out.startswith("emptybox 0.")


def test_an_unknown_verb_is_a_wrong_command_line() -> None:
    answer = run_here("statsu")
    assert answer.code == USAGE
    assert "statsu" in answer.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str) -> None:
    assert "_EMPTYBOX_COMPLETE" in run_here("completion", shell).out


def test_a_shell_can_ask_for_completions() -> None:
    env = {"_EMPTYBOX_COMPLETE": "bash_complete", "COMP_WORDS": "emptybox sta", "COMP_CWORD": "1"}
    assert run_here(env=env).out.strip() == "plain,status"


def test_completing_an_app_without_an_agent_says_nothing(tmp_path: Path) -> None:
    env = {"_EMPTYBOX_COMPLETE": "bash_complete", "COMP_WORDS": "emptybox logs w", "COMP_CWORD": "2"}
    answer = run_here(env={**env, "EMPTYBOX_DATA": str(tmp_path), "EMPTYBOX_SOCKET": None})
    assert (answer.out.strip(), answer.err) == ("", "")


def test_config_shows_flags_over_variables_over_defaults() -> None:
    env = {"EMPTYBOX_POLL": "10s", "EMPTYBOX_REF": "main"}
    rows = json.loads(run_here("config", "--json", "--ref", "next", "--label", "a=b", env=env).out)
    assert (rows["poll"], rows["ref"], rows["labels"]) == ("10.0", "next", "a=b")
    text = run_here("config", env=env).out
    assert ["ref", "main"] in [line.split() for line in text.splitlines()]


def test_config_names_every_problem_at_once() -> None:
    answer = run_here("config", "--poll", "5", "--nonsense", "--admin", "x")
    assert answer.code == USAGE
    assert all(word in answer.err for word in ("--poll", "--nonsense", "--admin"))


def test_no_agent_is_told_with_where_it_was_looked_for_and_how_to_start_one(tmp_path: Path) -> None:
    answer = run_here("status", env={"EMPTYBOX_DATA": str(tmp_path), "EMPTYBOX_SOCKET": None})
    assert answer.code == UNREACHABLE
    assert str(tmp_path / "agent.sock") in answer.err
    assert "emptybox run --repo" in answer.err
    named = run_here("sync", env={"EMPTYBOX_SOCKET": str(tmp_path / "other.sock")})
    assert named.code == UNREACHABLE
    assert "other.sock" in named.err


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-hello\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\n\r\n[1]",
    ],
)
def test_what_is_no_agent_is_recognised(
    reply: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # a relative name is always short enough
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a.sock")
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve)
        thread.start()
        answer = run_here("status", "--socket", "a.sock")
        thread.join()
    assert answer.code == UNREACHABLE
    assert ("no agent" if reply else "hung up") in answer.err


def test_verbs_load_neither_the_server_nor_the_progress_bars() -> None:
    program = (
        "import sys; from agent.cli.main import main; main(['status', '--socket', '/nowhere/a.sock']);"
        "heavy = {'asyncio', 'aiohttp', 'rich', 'yaml', 'jinja2'};"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n"


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    words = [
        sys.executable,
        "-c",
        "import sys; from agent.cli.main import main; sys.exit(main(sys.argv[1:]))",
    ]
    done = subprocess.run([*words, "run", "--help"], stdout=write, stderr=subprocess.PIPE, timeout=30)
    os.close(write)
    assert (done.returncode, done.stderr) == (OK, b"")


def test_every_verb_in_the_table_is_a_command() -> None:
    context = emptybox.make_context("emptybox", ["--help"], resilient_parsing=True)
    assert all(emptybox.get_command(context, verb) for verb in HERE)
