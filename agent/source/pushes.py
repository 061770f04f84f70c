"""What a verified delivery leads to: a trigger in the inbox, or a reason why it is ignored."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from agent.domain.events import Bus, TriggerHeard
from agent.domain.model import Trigger, TriggerKind
from agent.kit.mask import secrets
from agent.source.following import Following, path_of
from agent.source.inbox import TriggerInbox
from webhook.event import ArtifactEvent, Hint, PushEvent
from webhook.sink import ACCEPTED, IGNORED, MERGED, Verdict

REMEMBERED = 1000  # announced commits


class PushSink:
    """The agent's end of the webhook receiver (`webhook.sink.Sink`).

    Args:
        inbox: where pushes that concern us go.
        repo: URL of the state repository.
        ref: the ref that is followed.
        bus: hears of every delivery that did not reach the inbox.
        artifacts: URLs of the artifacts that are wanted now.
    """

    def __init__(
        self,
        inbox: TriggerInbox,
        repo: str,
        ref: str,
        bus: Bus,
        artifacts: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self._inbox = inbox
        self._following = Following(repo, ref)
        self._bus = bus
        self._artifacts = artifacts
        self._announced: OrderedDict[str, None] = OrderedDict()
        self.pushes = 0  # to what is followed

    def announced(self, commit: str) -> bool:
        """Whether a push announced this commit, of the last thousand."""
        return commit in self._announced

    def accept(self, pushes: Sequence[PushEvent]) -> Verdict:
        """See `Sink`."""
        objections = [self._following.objection(push) for push in pushes]
        ours = [push for push, objection in zip(pushes, objections, strict=True) if not objection]
        detail = f"{pushes[0].forge} {pushes[0].delivery}".strip()
        if not ours:
            return self._ignored(objections[0], detail)
        self.pushes += 1
        commits = [push.after for push in ours if push.after]
        for commit in commits:
            self._remember(commit)
        if commits and (sync := self._inbox.looked_at(commits[-1])):
            self._bus.publish(
                TriggerHeard(TriggerKind.PUSH, MERGED, "the newest look has seen this commit", sync, detail)
            )
            return Verdict(MERGED, sync)
        return self._offer(TriggerKind.PUSH, commits[-1] if commits else None, detail)

    def accept_artifact(self, event: ArtifactEvent) -> Verdict:
        """See `Sink`. News of what no wanted artifact's URL names are ignored."""
        detail = f"{event.forge} {event.delivery}".strip()
        wanted = [f"/{unquote(url).casefold()}" for url in self._artifacts()]
        names = ["/".join(path_of(name)[-2:]) for name in event.repositories]
        if not any(f"/{name}{end}" in url + "/" for name in names if name for url in wanted for end in "/:@"):
            return self._ignored(
                f"no artifact that is wanted comes from {names[0] if names else '?'}", detail
            )
        told = f"{detail}: {names[0]}{f':{event.tag}' if event.tag else ''}"
        return self._offer(TriggerKind.ARTIFACT, None, told)

    def accept_hint(self, event: Hint) -> Verdict:
        """See `Sink`."""
        self.pushes += 1
        return self._offer(TriggerKind.PUSH, None, f"{event.forge} {event.delivery}".strip())

    def _offer(self, kind: TriggerKind, commit: str | None, detail: str) -> Verdict:
        accepted = self._inbox.offer(Trigger(kind, commit, detail))
        return Verdict(MERGED if accepted.merged else ACCEPTED, accepted.sync)

    def _ignored(self, reason: str, detail: str) -> Verdict:
        self.heard(IGNORED, reason, detail)
        return Verdict(IGNORED, reason=reason)

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
