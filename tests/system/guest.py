"""Runs in the machine of `test_machine`, as its last service: what docs/operations.md says, tried on systemd.

Standard library only. Each part prints `passed NAME`; the first that fails prints why, and is the last.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

DEADLINE = 240.0  # seconds for anything to become true: this machine is emulated
SOURCES = pathlib.Path("/usr/src/emptybox")
UNIT = pathlib.Path("/etc/systemd/system/emptybox.service")
DATA = pathlib.Path("/var/lib/emptybox")
REF = pathlib.Path("/srv/state.git/refs/heads/main")
COMMITS = json.loads(pathlib.Path("/srv/commits.json").read_text())
SETTINGS = """
repo: file:///srv/state.git
ref: main
file-root: [/srv/artifacts]
poll: 1h
"""


def run(command: str, code: int = 0) -> str:
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == code, f"{command}: {done.returncode}\n{said}\n{journal()}"
    return said


def journal() -> str:
    lines = subprocess.run(
        ["journalctl", "--unit", "emptybox", "--no-pager", "--lines", "60"], capture_output=True, text=True
    )
    return lines.stdout


def documented(name: str) -> None:
    """Carry out a block of the operations page, but for what needs pip and its network."""
    lines = json.loads(pathlib.Path("/srv/page.json").read_text())[name].splitlines()
    for line in lines:
        if "/bin/pip " not in line:
            run(f"cd {SOURCES} && {line}")


def show(name: str) -> str:
    return run(f"systemctl show emptybox --property {name} --value").strip()


def until(condition: Callable[[], T], what: str) -> T:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"not within {DEADLINE} s: {what}\n{journal()}")


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return str(answer.read().decode())


def status() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get("http://127.0.0.1:7070/status"))
    return found


def web() -> dict[str, Any]:
    found: dict[str, Any] = status()["apps"].get("web", {})
    return found


def serves(version: str) -> dict[str, Any]:
    until(lambda: get("http://127.0.0.1:8080/") == f"{version}\n", f"{version} serves")
    until(lambda: web().get("state") == "running", f"{version} proves itself")
    return web()


def push(version: str) -> None:
    REF.write_text(COMMITS[version] + "\n")


def facts(pid: int) -> dict[str, list[str]]:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, _, value in (line.partition(":") for line in lines)}


def installs() -> None:
    push("1.0")
    pathlib.Path("/etc/emptybox").mkdir()
    pathlib.Path("/etc/emptybox/agent.yaml").write_text(SETTINGS)
    drop_in = pathlib.Path(f"{UNIT}.d/test.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nWatchdogSec=30s\n")  # the only thing that is not as it comes
    run(f"systemd-analyze verify {SOURCES}/examples/systemd/emptybox.service")
    documented("install")
    assert show("ActiveState") == "active"
    assert get("http://127.0.0.1:7070/healthz") == "alive\n"  # at once: READY=1 has been waited for
    serves("1.0")


def is_hardened() -> None:
    main = int(show("MainPID"))
    agent, child = status()["agent"]["pid"], web()["child"]["pid"]
    user = run("id -u emptybox").strip()
    for pid in (main, agent, child):
        now = facts(pid)
        assert now["Uid"] == [user] * 4, now
        assert now["NoNewPrivs"] == ["1"] and now["Seccomp"] == ["2"], now
        assert {now[name][0] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}, now
    modes = [c for c in web()["conditions"] if c["type"] == "SocketMode"]
    assert modes[0]["reason"] == "Adopted", modes
    rating = run("systemd-analyze security --no-pager --threshold=20 emptybox")
    print(rating.strip().splitlines()[-1])


def compares() -> None:
    """What the page on isolation says that units of systemd keep from the hostile program."""
    page = json.loads(pathlib.Path("/srv/page.json").read_text())["compared"]
    pathlib.Path("/etc/emptybox/secret").write_text("hush")
    pathlib.Path("/srv/outside").mkdir()
    pathlib.Path("/srv/release").touch()
    other = subprocess.Popen(["sleep", "10000"])  # of the same user, and with all rights, as the agent may be
    targets = {
        "secret": "/etc/emptybox/secret", "journal": str(DATA / "journal.db"), "agent": other.pid,
        "keeper": other.pid, "outside": "/srv/outside", "release": "/srv/release", "free": 9999,
        "admin": 7070, "init_module": page["init_module"],
    }  # fmt: skip
    found, hard = {}, page["settings"]
    for column, settings in zip(page["columns"], ([], hard, [*hard, "DynamicUser=yes"]), strict=True):
        words = [word for line in ["StateDirectory=intruder", *settings] for word in ("--property", line)]
        unit = ["systemd-run", "--wait", "--pipe", "--quiet", *words]
        unit += [f"--setenv=TARGETS={json.dumps(targets)}", "python3", "-S", "/usr/src/intruder.py", "try"]
        done = subprocess.run(unit, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        found[column] = json.loads(done.stdout)
        print(f"{column}: {found[column]}")
    other.kill()
    other.wait()
    said = {column: {a: row[column] for a, row in page["table"].items()} for column in found}
    seen = {
        column: {a: "can" if tried.pop(a) == "done" else "stopped" for a in page["table"]}
        for column, tried in found.items()
    }
    assert seen == said, seen
    needed = [set(tried.values()) for tried in found.values()]
    assert needed == [{"done"}] * 3, found
    pathlib.Path("/etc/emptybox/secret").unlink()


def reloads() -> None:
    main = show("MainPID")
    push("2.0")
    run("systemctl reload emptybox")
    serves("2.0")
    assert show("MainPID") == main


def survives_the_agent() -> None:
    main, agent, child = show("MainPID"), status()["agent"]["pid"], web()["child"]["pid"]
    os.kill(agent, signal.SIGKILL)
    until(lambda: status()["agent"]["pid"] != agent, "another agent")
    assert serves("2.0")["child"]["pid"] == child
    assert (show("MainPID"), show("NRestarts")) == (main, "0")


def starts_a_hung_agent_again() -> None:
    main, agent, child = show("MainPID"), status()["agent"]["pid"], web()["child"]["pid"]
    os.kill(agent, signal.SIGSTOP)
    until(lambda: not pathlib.Path(f"/proc/{agent}").exists(), "the hung agent is killed")
    until(lambda: status()["agent"]["pid"] != agent, "another agent")
    assert serves("2.0")["child"]["pid"] == child
    assert (show("MainPID"), show("NRestarts")) == (main, "0")


def upgraded() -> bool:
    try:
        documented("upgrade")
    except AssertionError as error:
        if "said nothing within" in str(error):  # an emulated processor may take longer than that
            return False
        raise
    return True


def upgrades() -> None:
    main, agent, child = show("MainPID"), status()["agent"]["pid"], web()["child"]["pid"]
    (metadata,) = pathlib.Path("/opt/emptybox/lib").glob("python3*/site-packages/emptybox-*/METADATA")
    old = status()["agent"]["version"]
    metadata.write_text(metadata.read_text().replace(f"\nVersion: {old}\n", "\nVersion: 99.1\n", 1))
    until(upgraded, "the installed code can be tried within the agent's patience")
    until(lambda: status()["agent"]["version"] == "99.1", "the new code runs")
    assert status()["agent"]["pid"] != agent
    assert serves("2.0")["child"]["pid"] == child
    assert show("MainPID") == main


def restarts_a_hung_keeper() -> None:
    main = show("MainPID")
    os.kill(int(main), signal.SIGSTOP)
    until(lambda: show("MainPID") not in ("0", main), "systemd starts it again")
    serves("2.0")
    assert show("NRestarts") == "1"


def limits_what_apps_use() -> None:
    """With the drop-in of the page on isolation: control groups of version 2, made by who is not root."""
    text = json.loads(pathlib.Path("/srv/page.json").read_text())["limits"]
    (pathlib.Path(f"{UNIT}.d") / "limits.conf").write_text(text)
    run("systemctl daemon-reload && systemctl restart emptybox")
    push("limited")
    run("systemctl reload emptybox")
    failed = until(lambda: status()["apps"].get("eater", {}).get("last_failure"), "the eater meets its limit")
    assert failed["message"] == "version 1 was killed by the memory limit of 32M", failed
    serves("2.0")

    def group() -> str:
        inside = pathlib.Path(f"/proc/{web()['child']['pid']}/cgroup").read_text().strip().partition("::")[2]
        return inside if inside.rpartition("/")[2].startswith("web~") else ""

    found = pathlib.Path(f"/sys/fs/cgroup{until(group, 'the app is in a group of its own')}")
    said = {name: (found / name).read_text().strip() for name in ("memory.max", "pids.max", "cpu.max")}
    assert said == {"memory.max": str(64 << 20), "pids.max": "60", "cpu.max": "50000 100000"}, said
    assert "wbps=10485760" in (found / "io.max").read_text()
    assert 'emptybox_app_memory_kills_total{app="eater"}' in get("http://127.0.0.1:7070/metrics")
    push("2.0")
    run("systemctl reload emptybox")
    until(lambda: "eater" not in status()["apps"] and not group(), "the limits are gone")
    serves("2.0")


def stops_in_order() -> None:
    pids = [int(show("MainPID")), status()["agent"]["pid"], web()["child"]["pid"]]
    run("systemctl stop emptybox")
    assert (show("Result"), show("ExecMainStatus")) == ("success", "0"), journal()
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}")]
    said = journal()
    order = ["info    shutting down", "web | version 2.0 ends", "info    stopped"]
    places = [said.rindex(text) for text in order]
    assert places == sorted(places), said


def is_backed_up() -> None:
    run("cp --archive /var/lib/emptybox /srv/backup")
    shutil.rmtree(DATA)
    run("cp --archive /srv/backup /var/lib/emptybox")
    os.rename("/srv/state.git", "/srv/away.git")
    run("systemctl start emptybox")
    serves("2.0")


def contains() -> None:
    """Containers on control groups of version 2 alone, with limits and without; also without root."""
    push("contained")
    for user in ("root", "emptybox"):
        name = f"contained-{user}"
        properties = (f"User={user}", f"StateDirectory={name}", "Delegate=yes")
        given = " ".join(f"--property {one}" for one in properties)
        unit = f"systemd-run --quiet --wait --pipe --unit {name} {given}"
        source = "--repo file:///srv/state.git --ref main --file-root /srv/artifacts"
        agent = f"/opt/emptybox/bin/emptybox once {source} --data /var/lib/{name} --admin 127.0.0.1:7171"
        said = run(f"{unit} {agent}", code=128 + signal.SIGKILL)
        assert "HAL-9000\n" in said, said
        assert "killed by the memory limit of 64M" in said, said
        assert not list(pathlib.Path("/sys/fs/cgroup").glob("**/*~*")), said
        assert not list(pathlib.Path(f"/var/lib/{name}").glob("apps/*/instances/*")), said
    push("2.0")


def refuses_newer_data() -> None:
    known = (DATA / "format").read_text()
    (DATA / "format").write_text("999\n")
    run("systemctl start emptybox", code=1)
    assert (show("ActiveState"), show("ExecMainStatus")) == ("failed", "2"), journal()
    assert "the data directory has format '999', this emptybox knows up to" in journal()
    (DATA / "format").write_text(known)


def is_uninstalled() -> None:
    documented("remove")
    assert not DATA.exists() and not UNIT.exists()
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid not in ("1", str(os.getpid()))]
    words = [pathlib.Path(f"/proc/{pid}/cmdline") for pid in left]
    assert not [word for word in words if word.exists() and b"emptybox/bin" in word.read_bytes()]


PARTS = (
    installs, is_hardened, compares, reloads, survives_the_agent, starts_a_hung_agent_again, upgrades,
    restarts_a_hung_keeper, limits_what_apps_use, stops_in_order, contains, refuses_newer_data, is_backed_up,
    is_uninstalled,
)  # fmt: skip


def main() -> None:
    for part in PARTS:
        began = time.monotonic()
        part()
        print(f"passed {part.__name__} ({time.monotonic() - began:.0f} s)")
    print("passed everything")


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc(file=sys.stdout)
