"""What a verified push leads to: a trigger in the inbox, or a reason why it is ignored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from agent.domain.events import Bus, TriggerHeard
from agent.domain.model import Trigger, TriggerKind
from agent.kit.mask import secrets
from agent.source.following import Following
from agent.source.inbox import TriggerInbox
from webhook.event import PushEvent
from webhook.sink import ACCEPTED, IGNORED, MERGED, Verdict

REMEMBERED = 1000  # announced commits


class PushSink:
    """The agent's end of the webhook receiver (`webhook.sink.Sink`).

    Args:
        inbox: where pushes that concern us go.
        repo: URL of the state repository.
        ref: the ref that is followed.
        bus: hears of every delivery that did not reach the inbox.
    """

    def __init__(self, inbox: TriggerInbox, repo: str, ref: str, bus: Bus) -> None:
        self._inbox = inbox
        self._following = Following(repo, ref)
        self._bus = bus
        self._announced: OrderedDict[str, None] = OrderedDict()

    def announced(self, commit: str) -> bool:
        """Whether a push announced this commit, of the last thousand."""
        return commit in self._announced

    def accept(self, event: PushEvent) -> Verdict:
        """See `Sink`."""
        detail = f"{event.forge} {event.delivery}".strip()
        if objection := self._following.objection(event):
            self.heard(IGNORED, objection, detail)
            return Verdict(IGNORED, reason=objection)
        if event.after:
            self._remember(event.after)
        accepted = self._inbox.offer(Trigger(TriggerKind.PUSH, event.after, detail))
        return Verdict(MERGED if accepted.merged else ACCEPTED, accepted.sync)

    def heard(self, verdict: str, reason: str, detail: str) -> None:
        """See `Sink`."""
        self._bus.publish(TriggerHeard(TriggerKind.PUSH, verdict, reason, detail=detail))

    async def wait(self, sync: str, deadline: float) -> Mapping[str, object] | None:
        """See `Sink`: `sync`, `result`, `commit`, `seconds` and what failed as `failure`."""
        end = await self._inbox.wait(sync, deadline)
        if end is None:
            return None
        answer: dict[str, Any] = {
            "sync": end.sync,
            "result": str(end.result),
            "commit": end.commit,
            "seconds": round(end.seconds, 3),
        }
        if end.failure:
            failure = end.failure
            answer["failure"] = {
                "kind": str(failure.kind),
                "reason": failure.reason,
                "message": failure.message,
                "where": failure.where,
                "remedy": failure.remedy,
                "log": list(failure.log),
            }
        return dict(secrets.data(answer))

    def _remember(self, commit: str) -> None:
        self._announced[commit] = None
        self._announced.move_to_end(commit)
        while len(self._announced) > REMEMBERED:
            self._announced.popitem(last=False)
