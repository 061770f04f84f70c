"""Swap real servers again and again under load, and count what the clients lost. `make swaps`.

For each program and socket mode: the real agent, a commit and an operator's sync for each swap, new
connections at a steady rate from a process of its own, and clients beside them that keep theirs. No new
connection may be lost. Whoever keeps a connection may meet its server's graceful stop; so beside it the
same server is stopped and started again by hand under the same clients.

    python -m benchmarks.swaps [--programs nginx,node] [--modes fd,adopt,relay] [--swaps 100] [--rate 600]
    python -m benchmarks.swaps --flips 2000       the fast variant: the gate alone, see `benchmarks.flips`

Exit code 1 when a new connection was lost, when kept ones lost more than by hand (but for relay), or when a
program could not be swapped.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import math
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from agent.cli.demo.ports import free_port
from benchmarks.flips import flip
from benchmarks.programs import PROGRAMS, Program, by_hand
from benchmarks.report import machine
from benchmarks.rig import Rig, rig
from benchmarks.swarm import Swarm, swarm

SWAPS, RATE, KEPT = 100, 600, 16
BY_HAND = 40  # stops by hand, at most
RELAYED = 20  # swaps of what is relayed, at most: the last resort is measured, and not the promise
CHANCE = 1e-4  # that as many more are lost than by hand when there is no difference
ANSWERS = 20  # new connections each version has to answer
HEALTH = {"http": "/", "interval": "50ms", "timeout": "5s", "deadline": "30s", "probation": "100ms"}
STOP_DEADLINE = 40.0


@dataclass(slots=True, kw_only=True)
class Lost:
    """What was asked, and what was lost. `kept` are requests on kept connections."""

    times: int
    new: int = 0
    new_lost: dict[str, int] = field(default_factory=dict)
    kept: int = 0
    kept_lost: dict[str, int] = field(default_factory=dict)
    rate: float = 0.0
    slowest: float = 0.0

    @classmethod
    def of(cls, clients: Swarm, times: int) -> Lost:
        """As the clients told."""
        return cls(
            times=times,
            new=clients.total,
            new_lost=clients.lost(),
            kept=clients.requests,
            kept_lost=clients.kept_lost(),
            rate=clients.rate,
            slowest=clients.slowest,
        )

    @property
    def unanswered(self) -> int:
        """Requests lost on kept connections."""
        return sum(self.kept_lost.values())


@dataclass(slots=True, kw_only=True)
class Outcome:
    """One program in one mode. `trouble` says why it could not be swapped."""

    program: str
    mode: str
    swaps: Lost
    by_hand: Lost | None = None
    trouble: str = ""

    @property
    def good(self) -> bool:
        """Whether all was swapped, no new connection lost, and no more kept ones than by hand.

        What is relayed may lose more of these: its way is longer, and crosses a close more often.
        """
        return not self.trouble and not self.swaps.new_lost and (self.mode == "relay" or not self.worse)

    @property
    def worse(self) -> bool:
        """Whether a swap loses more of kept connections than a stop by hand, beyond chance."""
        return self.by_hand is not None and surplus(self.swaps, self.by_hand) < CHANCE

    def row(self) -> tuple[str, ...]:
        """For the table."""
        ours, other = self.swaps, self.by_hand
        return (
            self.program,
            self.mode,
            str(ours.times),
            f"{ours.new}",
            f"{ours.rate:.0f}",
            f"{ours.slowest * 1000:.0f} ms",
            _told(ours.new_lost),
            f"{ours.unanswered} of {ours.kept}" if ours.kept else "-",
            f"{other.unanswered} of {other.kept} ({other.times})" if other is not None else "-",
            self.trouble.splitlines()[0] if self.trouble else "more than by hand" * self.worse,
        )


def surplus(ours: Lost, other: Lost) -> float:
    """The chance of so many losses, or more, among ours if all were spread evenly over swaps and stops."""
    both, share = ours.unanswered + other.unanswered, ours.times / max(1, ours.times + other.times)
    if not 0 < share < 1:
        return 1.0
    ways = (math.lgamma(both + 1) - math.lgamma(k + 1) - math.lgamma(both - k + 1) for k in range(both + 1))
    chances = [
        math.exp(way + k * math.log(share) + (both - k) * math.log(1 - share)) for k, way in enumerate(ways)
    ]
    return sum(chances[ours.unanswered :])


HEAD = (
    "program", "socket", "swaps", "new connections", "a second", "slowest", "lost", "kept: lost",
    "by hand (stops)", "",
)  # fmt: skip


def _told(lost: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.removeprefix('lost ')}" for name, count in lost.items()) or "0"


def table(rows: list[tuple[str, ...]]) -> str:
    """In Markdown, the first row being the head; columns in line."""
    widths = [max(3, *(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    ruled = [rows[0], tuple("-" * width for width in widths), *rows[1:]]
    lines = (" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in ruled)
    return "\n".join(f"| {line} |" for line in lines)


def app_state(stand: Rig, program: Program, mode: str, version: str) -> str:
    """Publish the archive of a version; its state.yaml."""
    name = f"{program.name}-{version}.tar.gz"
    data = program.archive(version, stand.app_port)
    (stand.directory / "artifacts" / name).write_bytes(data)
    web: dict[str, Any] = {
        "version": version,
        "artifact": {
            "url": f"{stand.artifacts}/{name}",
            "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}",
        },
        "run": {
            "command": program.command(mode, stand.app_port),
            "stop": {"signal": program.stop, "grace": "20s"},
        },
        "env": program.variables(mode),
        "listen": {"http": {"port": stand.app_port, "address": "127.0.0.1"}},
        "socket": mode,
        "health": HEALTH,
    }
    if not program.graceful:
        web["drain"] = {"connections": True, "deadline": "10s"}
    return json.dumps({"schema": 1, "apps": {"web": web}}, indent=1) + "\n"


async def swap_with_agent(program: Program, mode: str, swaps: int, rate: float, kept: int) -> Outcome:
    """One program in one mode under the real agent. Losses and trouble are in the outcome."""
    outcome = Outcome(program=program.name, mode=mode, swaps=Lost(times=0))
    done = 0
    async with rig({}, poll="1h") as stand:
        await stand.publish(app_state(stand, program, mode, "v0"), "v0")
        await stand.start_agent()
        try:
            await stand.proven("v0")
            async with swarm("127.0.0.1", stand.app_port, rate, kept if program.keep_alive else 0) as clients:
                try:
                    await clients.answered("v0", ANSWERS)
                    for number in range(1, swaps + 1):
                        version = f"v{number}"
                        await stand.publish(app_state(stand, program, mode, version), version)
                        await stand.sync()
                        await stand.proven(version)
                        await clients.answered(version, ANSWERS)
                        done = number
                    await stand.retired()
                except (TimeoutError, aiohttp.ClientError) as error:  # an agent that ends is trouble, too
                    outcome.trouble = str(error) or "not within the deadline"
            outcome.swaps = Lost.of(clients, done)
            strangers = set(clients.new) - {f"v{number}" for number in range(swaps + 1)}
            assert strangers == set(outcome.swaps.new_lost), strangers
        except TimeoutError as error:
            outcome.trouble = str(error) or "not within the deadline"
    return outcome


async def stop_by_hand(program: Program, times: int, rate: float, kept: int) -> Lost:
    """Stop and start the server by hand, alone on its port; what clients lose who keep connections.

    New connections go to another server beside it, as after a flip: the machine has as much to do. While
    the one is away, those who keep connections are refused, which counts as nothing.
    """
    port, other = free_port(set()), free_port(set())
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="emptybox-bench-")))
        servers = [by_hand(program, directory / "one", "v0", port)]
        servers.append(by_hand(program, directory / "other", "other", other))
        stack.push_async_callback(_stop_all, servers, program)
        clients = await stack.enter_async_context(swarm("127.0.0.1", port, 0, kept))
        await clients.until(lambda c: c.kept["v0"] >= 5 * kept)
        await stack.enter_async_context(swarm("127.0.0.1", other, rate))
        for number in range(1, times + 1):
            await _stop(servers[0], program)
            servers[0] = by_hand(program, directory / "one", f"v{number}", port)
            await clients.until(lambda c, v=f"v{number}": c.kept[v] >= 5 * kept)  # type: ignore[misc]
    return Lost.of(clients, times)


async def _stop_all(servers: list[subprocess.Popen[bytes]], program: Program) -> None:
    for server in servers:
        await _stop(server, program)


async def _stop(server: subprocess.Popen[bytes], program: Program) -> None:
    if server.poll() is None:
        server.send_signal(signal.Signals[f"SIG{program.stop}"])
    try:
        await asyncio.to_thread(server.wait, STOP_DEADLINE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def chosen(programs: list[str], modes: list[str]) -> tuple[list[tuple[Program, str]], list[str]]:
    """What is to be swapped, in which mode, and what cannot be and why."""
    combinations, left_out = [], []
    for program in (PROGRAMS[name] for name in programs):
        if missing := program.missing():
            left_out.append(f"{program.name}: there is no {missing}")
            continue
        for mode in modes:
            if mode in program.modes():
                combinations.append((program, mode))
            else:
                left_out.append(f"{program.name}: cannot be handed a socket ({mode})")
    return combinations, left_out


async def measure(given: argparse.Namespace) -> list[Outcome]:
    """All of it, one after the other."""
    modes = "fd" if given.flips else given.modes
    combinations, left_out = chosen(given.programs.split(","), modes.split(","))
    for reason in left_out:
        print(f"left out: {reason}", file=sys.stderr)
    outcomes: list[Outcome] = []
    hands: dict[str, Lost] = {}
    for program, mode in combinations:
        print(f"swapping {program.name} ({mode}) ...", file=sys.stderr, flush=True)
        if given.flips:
            clients = await flip(program, given.flips, given.rate, given.kept)
            outcomes.append(Outcome(program=program.name, mode=mode, swaps=Lost.of(clients, given.flips)))
            continue
        swaps = min(given.swaps, RELAYED) if mode == "relay" else given.swaps
        outcome = await swap_with_agent(program, mode, swaps, given.rate, given.kept)
        if program.keep_alive and given.kept:
            if program.name not in hands:
                stops = min(given.swaps, BY_HAND)
                hands[program.name] = await stop_by_hand(program, stops, given.rate, given.kept)
            outcome.by_hand = hands[program.name]
        outcomes.append(outcome)
        if not given.json:
            print(table([HEAD, outcome.row()]), file=sys.stderr, flush=True)
        if outcome.trouble:
            print(outcome.trouble, file=sys.stderr)
    return outcomes


def main() -> int:
    """Swap what is asked for; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.swaps", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--programs", default=",".join(PROGRAMS), help="names with commas; all when not given"
    )
    parser.add_argument("--modes", default="fd,adopt,relay", help="socket modes with commas")
    parser.add_argument("--swaps", type=int, default=SWAPS, help=f"swaps of each; relayed {RELAYED} at most")
    parser.add_argument("--rate", type=float, default=RATE, help="new connections a second")
    parser.add_argument("--kept", type=int, default=KEPT, help="clients that keep their connection")
    parser.add_argument("--flips", type=int, help="no agent, only so many flips of the gate (socket: fd)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    if unknown := set(given.programs.split(",")) - set(PROGRAMS):
        parser.error(f"no such program: {', '.join(unknown)}")
    outcomes = asyncio.run(measure(given))
    if given.json:
        print(json.dumps({"machine": machine(), "outcomes": [asdict(o) for o in outcomes]}, indent=2))
    else:
        print("\n" + table([HEAD, *(outcome.row() for outcome in outcomes)]))
        print(", ".join(f"{name} {value}" for name, value in machine().items()))
    lost = sum((Counter(outcome.swaps.new_lost) for outcome in outcomes), Counter[str]())
    print(f"new connections lost: {lost.total()}", file=sys.stderr)
    return 0 if outcomes and all(outcome.good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
