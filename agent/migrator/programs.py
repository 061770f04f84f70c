"""A command, once for a release, while nobody else migrates the database; the history has that it ran."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time

from agent.migrator.database import Database, Tell
from agent.migrator.history import DONE, FAILED, RUNNING, UNDONE, History, Row
from agent.migrator.order import VARIABLE, Answer, Order
from agent.migrator.problems import Problem, failed

LATER = 75  # sysexits.h, EX_TEMPFAIL: nothing was done, try again later
EVERY = 1.0  # seconds between two looks whether the lock is still ours
GRACE = 5.0


def identity(order: Order) -> str:
    """What ran: the same command of the same release is not run twice."""
    return hashlib.sha256(json.dumps(order.command).encode()).hexdigest()


def run_program(database: Database, order: Order, tell: Tell) -> Answer:
    """Do what the order says with a command; the database is locked. Raises Problem."""
    history = History(database, order)
    if order.mode == "look":
        last = _last(history.rows(), order)
        if last is None or last.state == UNDONE:
            return Answer(pending=1, breaking=history.breaking())
        return Answer(applied=[last.script], pending=int(last.state != DONE), breaking=history.breaking())
    history.prepare()
    if order.mode == "down":
        if not _run(database, history, order, tell, UNDONE):
            return Answer(outcome="later")
        for release in order.undo:
            history.add("", order.name, UNDONE, UNDONE, 0.0, release)
        return Answer()
    last = _last(history.rows(), order)
    if last is not None and last.state == DONE:
        tell(f"nothing to do: it ran for {last.told}")
        return Answer(applied=[last.script], breaking=history.breaking())
    if last is not None and last.state == RUNNING:
        tell(f"it was begun for {last.told}, and cut short: it runs again")
    if not _run(database, history, order, tell, DONE):
        return Answer(outcome="later")
    return Answer(applied=[order.name], breaking=history.breaking())


def _last(rows: list[Row], order: Order) -> Row | None:
    ours = [r for r in rows if r.release == order.release and r.checksum in (identity(order), UNDONE)]
    return ours[-1] if ours else None


def _run(database: Database, history: History, order: Order, tell: Tell, state: str) -> bool:
    """Run it; whether it did its work, and did not ask to be tried later."""
    began = time.monotonic()
    rank = history.add("", order.name, identity(order) if state == DONE else UNDONE, RUNNING)
    try:
        code = _wait(_start(order), database, order)
    except Problem as problem:
        _try_to_end(history, rank, time.monotonic() - began, problem)
        raise
    seconds = time.monotonic() - began
    if code == 0:
        history.end(rank, state, seconds)
        tell(f"{order.name}: done in {seconds:.3f} s")
        return True
    history.end(rank, FAILED, seconds)
    if code == LATER:
        return False
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    raise failed(f"{order.command[0]} {how}", unsure=True)


def _try_to_end(history: History, rank: int, seconds: float, problem: Problem) -> None:
    try:
        history.end(rank, FAILED, seconds)
    except Problem:
        problem.unsure = True  # it stays `running`, which is as true


def _start(order: Order) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    try:
        return subprocess.Popen(order.command, env=environment, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise failed(f"{order.command[0]} cannot be started: {error.strerror}") from None


def _wait(process: subprocess.Popen[bytes], database: Database, order: Order) -> int:
    """Its exit code. Without the lock, or over its time, it is ended: nobody may run beside the next one."""
    until = time.monotonic() + order.timeout
    try:
        while True:
            try:
                return process.wait(max(0.01, min(EVERY, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                if time.monotonic() > until:
                    raise failed(
                        f"{order.command[0]} did not end within {order.timeout:g} s", unsure=True
                    ) from None
                database.ping()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
