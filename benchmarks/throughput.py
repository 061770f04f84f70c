"""Requests a second with 64 connections: through the gate, beside the bare application and two proxies.

One static server answers as fast as it can: started by hand, as an app of the agent's in each socket mode,
and behind HAProxy and nginx. All are there at once, and wrk(1) asks one after the other, in rounds; each
round's results are held against the bare application's of the same round.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from agent.cli.demo.ports import free_port
from benchmarks.programs import PROGRAMS, SOURCES, Program, by_hand, found
from benchmarks.report import Report
from benchmarks.rig import Rig, rig
from benchmarks.swaps import app_state

ROUNDS = 9
SECONDS = 2
CONNECTIONS = 64
PROGRAM = "static"
MODES = ("fd", "adopt", "relay")
GOALS = {"fd": 0.99, "adopt": 0.97}  # of the bare application; fd is meant to be 1 within noise
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")
_ERRORS = re.compile(r"(Socket errors|Non-2xx).*")


async def run(rounds: int = ROUNDS) -> Report:
    """Measure; without wrk there is nothing to report."""
    program = PROGRAMS[PROGRAM]
    if missing := [need for need in ("wrk", *program.needs) if not found(need)]:
        report = Report("throughput: not measured")
        report.row("there is no", ", ".join(missing), "(Debian packages: wrk, gcc, libc6-dev)")
        report.data = {"missing": missing}
        return report
    rates: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        ports = await _everyone(stack, program)
        for number in range(rounds + 1):
            names = list(ports)
            names = names[number % len(names) :] + names[: number % len(names)]
            for name in names:
                rate = await _ask(ports[name])
                if number:  # the first round warms up
                    rates.setdefault(name, []).append(rate)
    return _report({name: rates[name] for name in ports})


async def _everyone(stack: AsyncExitStack, program: Program) -> dict[str, int]:
    """Start all of them; their ports by name."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emptybox-bench-")))
    bare = free_port(set())
    await stack.enter_async_context(_running(by_hand(program, directory / "bare", "v0", bare), bare))
    ports = {"bare": bare, "bare again": bare}  # the second says how much is noise
    for mode in MODES:
        try:
            stand = await stack.enter_async_context(_app(program, mode))
        except TimeoutError as error:
            print(f"left out: {mode}: {error}", file=sys.stderr)
            continue
        ports[mode] = stand.app_port
    proxies = {
        "HAProxy": ("haproxy", "haproxy.cfg", ["-db", "-q", "-f", "haproxy.cfg"]),
        "nginx": ("nginx", "proxy.conf", ["-p", ".", "-e", "stderr", "-c", "proxy.conf"]),
    }
    for name, (binary, config, arguments) in proxies.items():
        if not found(binary):
            print(f"left out: there is no {binary}", file=sys.stderr)
            continue
        place, port = directory / name, free_port(set())
        place.mkdir()
        text = (SOURCES / config).read_text().replace("@PORT@", str(port)).replace("@APP@", str(bare))
        (place / config).write_text(text)
        process = subprocess.Popen([found(binary), *arguments], cwd=place, stderr=subprocess.DEVNULL)
        await stack.enter_async_context(_running(process, port))
        ports[name] = port
    return ports


@asynccontextmanager
async def _running(process: subprocess.Popen[bytes], port: int) -> AsyncIterator[None]:
    """A process that answers on a port; ended afterwards."""
    try:
        async with asyncio.timeout(10):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                except OSError:
                    assert process.poll() is None, f"{process.args!r} ended"
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    break
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def _app(program: Program, mode: str) -> AsyncIterator[Rig]:
    """The program as an app of a real agent."""
    async with rig({}, poll="1h") as stand:
        await stand.publish(app_state(stand, program, mode, "v0"), "v0")
        await stand.start_agent()
        await stand.proven("v0")
        yield stand


async def _ask(port: int) -> float:
    """Requests a second, by wrk."""
    process = await asyncio.create_subprocess_exec(
        str(shutil.which("wrk")), "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", f"http://127.0.0.1:{port}/",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    told = (await process.communicate())[0].decode()
    assert _ERRORS.search(told) is None, told
    rate = _RATE.search(told)
    assert rate is not None, told
    return float(rate[1])


def _report(rates: Mapping[str, list[float]]) -> Report:
    rounds = len(rates["bare"])
    turns = f"{rounds} rounds of {SECONDS} s in turns"
    report = Report(f"throughput of a static server with {CONNECTIONS} connections, {turns}")
    report.data = {"rounds": rounds, "connections": CONNECTIONS, "goals": GOALS}
    for name, found_rates in rates.items():
        ratios = [rate / bare for rate, bare in zip(found_rates, rates["bare"], strict=True)]
        ratio = statistics.median(ratios)
        goal = f"; goal: {GOALS[name]:.2f}" if name in GOALS else ""
        report.row(
            name,
            f"{statistics.median(found_rates):.0f} /s",
            f"{ratio:.2f} of bare ({min(ratios):.2f} to {max(ratios):.2f}){goal}",
        )
        report.data[name] = {"rates": found_rates, "ratio": ratio}
    return report
