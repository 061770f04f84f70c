"""The program: reads its order from the environment, does it, and says in its last line how it ended.

Started by path, with `python -I`: neither the app's directory nor its environment decides what is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))

from agent.migrator.database import connect
from agent.migrator.order import VARIABLE, Answer, Order, read_order
from agent.migrator.problems import Problem
from agent.migrator.programs import run_program
from agent.migrator.scripts import run_scripts

LOOKING = 10.0  # seconds until what is left of a broken session lets the lock go


def tell(line: str) -> None:
    """For people."""
    print(line, flush=True)


def carry_out(order: Order) -> Answer:
    """Do it, alone with the database."""
    try:
        database = connect(order)
        try:
            database.lock(order.who, order.wait, tell)
            work = run_scripts if order.sql else run_program
            try:
                return work(database, order, tell)
            except Problem as problem:
                answer = _told(problem)
        finally:
            database.close()
    except Problem as problem:  # before anything was done
        return _told(problem)
    return _how_it_stands(answer, order)


def _told(problem: Problem) -> Answer:
    return Answer(
        outcome=problem.outcome, reason=problem.reason, message=problem.message, remedy=problem.remedy,
        unsure=problem.unsure,
    )  # fmt: skip


def _how_it_stands(answer: Answer, order: Order) -> Answer:
    """With it, what this release has done to the database so far, read anew once nobody is at it."""
    try:
        database = connect(order)
        try:
            database.lock(order.who, LOOKING, tell)
            work = run_scripts if order.sql else run_program
            found = work(database, _looking(order), tell)
        finally:
            database.close()
    except Problem:  # what broke the first connection
        return answer
    answer.applied, answer.pending, answer.breaking = found.applied, found.pending, found.breaking
    if order.sql:  # a file's transaction tells in the history whether it is done
        answer.unsure = False
    return answer


def _looking(order: Order) -> Order:
    return Order(**{**{name: getattr(order, name) for name in Order.__slots__}, "mode": "look"})


def main() -> int:
    """Exit codes: 0 done, 75 later (also what may pass by itself), 1 everything else."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    order = read_order(os.environ.pop(VARIABLE))
    answer = carry_out(order)
    if answer.message:
        tell(f"{answer.reason}: {answer.message}")
    tell(answer.line())
    return {"done": 0, "later": 75, "transient": 75}.get(answer.outcome, 1)


if __name__ == "__main__":
    sys.exit(main())
