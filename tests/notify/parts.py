"""A bus, a journal on disk, a post office and an API server, wired as the agent wires them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.config import Settings
from agent.deploy.journal import Journal
from agent.domain import events as facts
from agent.domain.errors import FailureInfo, FailureKind
from agent.domain.model import Pair, PlannedStep, RunResult, StepResult, SyncResult, TriggerKind
from agent.kit.tasks import Owned
from agent.notify.channels import chats, status_channel
from agent.notify.courier import Courier
from agent.notify.letter import Channel
from agent.notify.teller import Teller

A, B = "a" * 40, "b" * 40
TOKEN = "t0ken-of-the-forge"
STEPS = (PlannedStep("fetch", "fetch", "new"),)
LABELS = {"env": "prod", "region": "eu"}
CHECKSUM = FailureInfo(FailureKind.PERMANENT, "ChecksumMismatch", "the bytes differ", remedy="look")
PROBE = FailureInfo(FailureKind.PERMANENT, "ProbeFailed", "HTTP 500")


def pair(version: str, commit: str = A) -> Pair:
    return Pair(f"spec-{version}", "", "", version, commit, "")


@dataclass
class Stand:
    """Facts go in by `play` and the named stories; what arrives is on the server."""

    bus: facts.Bus
    journal: Journal
    told: list[facts.Event] = field(default_factory=list)

    def play(self, *events: facts.Event) -> None:
        for event in events:
            self.bus.publish(event)

    def begin(self, sync: str, commit: str, version: str, app: str = "web") -> None:
        self.play(
            facts.SyncStarted(sync, (TriggerKind.PUSH,)),
            facts.SyncResolved(sync, commit),
            facts.AppWanted(app, pair(version, commit), "wanted"),
            facts.RunStarted(f"run-{sync}", sync, app, f"version -> {version}", STEPS),
        )

    def succeed(self, sync: str, commit: str, version: str, app: str = "web") -> None:
        self.play(
            facts.PairCurrent(app, pair(version, commit)),
            facts.RunFinished(f"run-{sync}", sync, app, RunResult.PROBATION, 1.0),
            facts.SyncFinished(sync, SyncResult.PROBATION, commit),
            facts.RunFinished(f"run-{sync}", sync, app, RunResult.SUCCEEDED, 1.0),
            facts.SyncFinished(sync, SyncResult.SUCCEEDED, commit),
        )

    def fail(self, sync: str, commit: str, why: FailureInfo, step: str, app: str = "web") -> None:
        self.play(
            facts.StepFinished(f"run-{sync}", app, step, step, StepResult.FAILED, 0.1, why),
            facts.RunFinished(f"run-{sync}", sync, app, RunResult.FAILED, 0.2, why),
            facts.SyncFinished(sync, SyncResult.FAILED, commit, why),
        )

    def roll_back(self, sync: str, commit: str, why: FailureInfo, to: str, app: str = "web") -> None:
        self.play(
            facts.PairCurrent(app, pair(to)),
            facts.RunFinished(f"run-{sync}", sync, app, RunResult.ROLLED_BACK, 0.2, why),
            facts.SyncFinished(sync, SyncResult.ROLLED_BACK, commit, why),
        )

    @property
    def conditions(self) -> list[tuple[str, str]]:
        return [
            (str(fact.condition.status), fact.condition.message)
            for fact in self.told
            if isinstance(fact, facts.ConditionChanged) and fact.condition.type == "NoticesDelivered"
        ]


@asynccontextmanager
async def stand(directory: Path, first_rest: float = 0.01, **settings: Any) -> AsyncIterator[Stand]:
    """One life of the agent, as far as telling others goes; the journal outlives it."""
    wanted = Settings(name="box-1", labels=LABELS, **settings)
    async with AsyncExitStack() as stack:
        bus = facts.Bus()
        journal = await stack.enter_async_context(await Journal.open(directory / "journal.db"))
        built = Stand(bus, journal)
        bus.subscribe(built.told.append)
        forge, told = status_channel(wanted), chats(wanted)
        teller = Teller(
            bus,
            journal.outbox,
            host="box-1",
            labels=LABELS,
            statuses=forge is not None,
            chats=told,
        )
        stack.callback(teller.unsubscribe)
        channels: list[Channel] = [*([forge] if forge is not None else []), *told]
        courier = Courier(journal.outbox, channels, bus, first_rest)
        tasks = await stack.enter_async_context(Owned("test"))
        tasks.start(courier.run(), name="courier")
        yield built
        await courier.flushed(10.0)


def token_file(directory: Path, text: str = TOKEN) -> Path:
    path = directory / "token"
    path.write_text(text + "\n")
    return path
