"""Starting, probing, telling and ending the processes of apps, in terms of deployments.

What runs to its end is a *command*, what keeps running is a *child*; both are the keeper's, so they outlive
the agent and are found again by their notes (`leftovers`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from agent.deploy.child import Child, ChildNote
from agent.deploy.crowd import Crowd
from agent.deploy.deployments import Deployment
from agent.deploy.failures import as_info
from agent.deploy.leftovers import LEAVING, FoundChild, Leftovers, found_children, note_key
from agent.deploy.listening import explained, until_bound
from agent.deploy.surroundings import Surroundings, port_variables
from agent.domain.control import Ends
from agent.domain.errors import Failure, FailureInfo, Permanent, Transient
from agent.domain.events import AppFailed, Bus, ChildStarted
from agent.domain.model import new_id
from agent.domain.spec import AppSpec, HealthSpec, ProbeKind, ReloadSpec, SocketMode
from agent.process.attached import run_attached
from agent.process.command import CommandResult, run_command
from agent.process.context import ChildContext
from agent.process.health import until_healthy, watch
from agent.process.keepers import Keeper
from agent.process.probe import ProbeTarget
from agent.process.stop import end_group, signal_number, stop
from agent.process.voice import until_ended, until_ready, until_reloaded, voice_of
from agent.traffic.state import CLOSED, Gate, GateState, Mode

LIFE = "life"  # the keeper's note that tells one of its lives from another


class Processes:
    """All processes of all apps, through the keeper. `leftovers` is what an earlier agent left there."""

    def __init__(self, keeper: Keeper, bus: Bus, surroundings: Surroundings) -> None:
        self.surroundings = surroundings
        self.leftovers = Leftovers(keeper)
        self.keeper = self._keeper = keeper
        self._bus = bus
        self._life = asyncio.Lock()
        self.crowd = Crowd()

    async def life(self) -> str:
        """The keeper's life as an id: another one means that every child of before is gone."""
        async with self._life:
            if LIFE not in self._keeper.notes:
                await self._keeper.note(LIFE, new_id("life"))
            return self._keeper.notes[LIFE]

    # -- children ------------------------------------------------------------------------------------

    async def start(
        self,
        deployment: Deployment,
        gate: Gate | None,
        side: int,
        run: str,
        instance: Path | None = None,
        number: int = 0,
    ) -> Child:
        """Start a child of a deployment; an `instance` that is not given is made. Raises Failure, OSError."""
        spec = deployment.spec
        assert spec.run is not None
        self.surroundings.user(spec)  # first of all: a start that cannot be must not cost the gate anything
        name = new_id(spec.name)
        own = instance is None
        lived_in = {found.note.instance for found in self.found(spec.name) if found.running}
        place = instance or await self.surroundings.instance(deployment, name, lived_in)
        note = ChildNote(spec.name, deployment.pair.spec, side, str(place), run, number)
        try:
            if gate is not None:
                # nginx uses an inherited socket as it finds it, and its workers would block in accept
                await gate.prepare(side, number, blocking="NGINX" not in spec.env)
            names = {"EMPTYBOX_INSTANCE": str(number), "EMPTYBOX_CHILD": name}
            extra = {**port_variables(spec, gate, side), **names}
            context = self.surroundings.context(deployment, place, extra, command=False)
            record = await context.spawn(
                self._keeper,
                name,
                spec.run.command,
                slots=gate.slots(side, number) if gate is not None else [],
                adopt=spec.socket is SocketMode.ADOPT,
                note=msgspec.json.encode(note).decode(),
                voice=voice_of(spec, place),
            )
        except BaseException:
            if own:
                await self.surroundings.remove_instance(place)
            raise
        child = Child(name, record.pid, side, deployment, place, gate, number)
        self.tell_started(child)
        return child

    def tell_started(self, child: Child) -> None:
        """Tell that a child runs, and what is kept from it."""
        record, spec = self._keeper.children[child.id], child.deployment.spec
        tier = self.surroundings.tier(spec)
        self._bus.publish(
            ChildStarted(spec.name, child.id, child.pid, tier, tuple(record.held), record.lacking)
        )

    async def until_end(self, child: Child, said: Callable[[], None]) -> None:
        """Wait for the child's end and learn how it ended. However this ends, `child.ended` is set.

        `said` is called whenever it says something else of itself meanwhile.
        """
        try:
            record = await until_ended(self._keeper, child.id, said)
            child.code, child.signal, child.silent = record.code, record.signal, record.silent
            child.limit = await self.surroundings.limit_hit(child.deployment.spec, child.id)
            child.log = tuple(await self.tail(child))
        finally:
            child.ended.set()

    async def renamed(self, child: Child) -> None:
        """The child serves another deployment from now on: tell the next agent."""
        await self._keeper.note(note_key(child.id), child.deployment.pair.spec)

    async def stop(self, child: Child) -> None:
        """Stop a child by its ladder, whole group, and forget it. Not interrupted by cancellation."""
        assert child.deployment.spec.run is not None
        child.expected = True
        if child.id in self._keeper.children:
            await self._keeper.note(note_key(child.id), LEAVING)
            await stop(self._keeper, child.id, child.deployment.spec.run.stop)
        await self.forget(child)

    async def connections_gone(self, child: Child) -> None:
        """With `drain.connections`: wait for the child's clients to leave, up to the drain's deadline."""
        spec = child.deployment.spec
        if spec.drain.connections and child.gate is not None and child.alive:
            pid = self._keeper.children[child.id].pid  # not the first one's, of a program in the background
            await child.gate.connections_gone(child.side, pid, spec.drain.deadline)

    async def forget(self, child: Child) -> None:
        """Drop what is left of an ended child: the rest of its group, its record, its instance directory."""
        if child.id in self._keeper.children:
            await end_group(self._keeper, child.id)
            await child.ended.wait()
            await self.surroundings.ungroup(child.deployment.spec, child.id)
            await self._keeper.forget(child.id)
        if note_key(child.id) in self._keeper.notes:
            await self._keeper.note(note_key(child.id), None)
        await self.surroundings.remove_instance(child.instance)

    async def tail(self, child: Child, lines: int = 200) -> list[str]:
        """The last output lines of a child; none of one that is forgotten."""
        try:
            return await self._keeper.tail(child.id, lines)
        except LookupError:
            return []

    async def reload(self, child: Child, spec: AppSpec, targets: Collection[str] = ()) -> None:
        """Tell a child to read its files again, of these each in its own way. Raises ReloadFailed."""
        assert spec.run is not None
        own = {file.target: file.reload for file in spec.files}
        ways = [own.get(target) or spec.run.reload for target in targets] or [spec.run.reload]
        for way in dict.fromkeys(ways):
            await self._reload(child, way)

    async def _reload(self, child: Child, reload: ReloadSpec) -> None:
        if reload.command:
            await self.must(child.deployment, child.instance, "reload", reload.command, 60.0, "ReloadFailed")
            return
        ready = self._keeper.children[child.id].ready if child.alive else 0
        if not await self._keeper.signal(child.id, signal_number(reload.signal), group=False):
            raise Permanent("ReloadFailed", "the child is gone", where=child.id)
        if child.deployment.spec.health.kind is ProbeKind.NOTIFY:
            await until_reloaded(self._keeper, child.id, ready)

    def said(self, child: Child) -> str:
        """What a child says of itself, in its words."""
        record = self._keeper.children.get(child.id)
        return record.status if record is not None else ""

    def found(self, app: str) -> list[FoundChild]:
        """Children of an app that the keeper has."""
        return found_children(self._keeper, app)

    # -- commands ------------------------------------------------------------------------------------

    async def command(
        self,
        deployment: Deployment,
        instance: Path,
        name: str,
        argv: tuple[str, ...],
        timeout: float,
        extra: Mapping[str, str] | None = None,
        heard: Callable[[Sequence[str]], None] | None = None,
        entry: int = 0,
        *,
        on_host: bool = False,
    ) -> CommandResult:
        """Run a command as the app's user in an instance directory. Raises Failure when it cannot start.

        `heard` is told its last lines now and then; `entry` is the ledger's number of a migration. `on_host`:
        see `Surroundings.context`.
        """
        context = self._commanding(deployment, instance, name, timeout, extra or {}, entry, on_host)
        return await run_command(
            self._keeper, name=name, argv=argv, context=context, timeout=timeout, heard=heard
        )

    async def attached(
        self, deployment: Deployment, instance: Path, argv: Sequence[str], timeout: float,
        extra: Mapping[str, str], ends: Ends, beside: str = "",
    ) -> CommandResult:  # fmt: skip
        """Run a command for somebody who is there: see `agent.process.attached`. Raises what that raises.

        `beside` is a child whose namespaces it shall be in, if it is to be in any.
        """
        context = self._commanding(deployment, instance, "exec", timeout, extra, 0)
        if beside and context.container is None and "namespaces" in context.bounds.confine:
            bounds = replace(context.bounds, confine={**context.bounds.confine, "join": beside})
            context = replace(context, bounds=bounds)
        return await run_attached(
            self._keeper, name="exec", argv=argv, context=context, timeout=timeout, ends=ends
        )

    def _commanding(
        self, deployment: Deployment, instance: Path, name: str, timeout: float,
        extra: Mapping[str, str], entry: int, on_host: bool = False,
    ) -> ChildContext:  # fmt: skip
        """Everything about a command but its program, with the note by which the next agent knows it."""
        told = {"app": deployment.spec.name, "command": name.split()[0]}
        told |= {"entry": str(entry), "timeout": f"{timeout:g}"}
        note = msgspec.json.encode(told).decode()
        context = self.surroundings.context(deployment, instance, extra, on_host=on_host)
        return replace(context, note=note)

    def judge(self, result: CommandResult, name: str, reason: str) -> None:
        """Raise what a command's end means: Transient("Later") for exit code 75, else Permanent(reason)."""
        if result.ok:
            return
        if result.later:
            raise Transient("Later", f"{name} asked to be tried again later", log=result.log)
        raise Permanent(reason, f"{name} {result.ended}", remedy="see its last lines", log=result.log)

    async def must(
        self,
        deployment: Deployment,
        instance: Path,
        name: str,
        argv: tuple[str, ...],
        timeout: float,
        reason: str,
    ) -> None:
        """Run a command that has to succeed. Raises Failure."""
        self.judge(await self.command(deployment, instance, name, argv, timeout), name, reason)

    async def hook(self, deployment: Deployment, point: str, extra: Mapping[str, str]) -> None:
        """Run the `crashed` or `cleanup` hook, if there is one. Its failure is told, and changes nothing."""
        hooks = deployment.spec.hooks
        argv = hooks.crashed if point == "crashed" else hooks.cleanup
        if not argv:
            return
        name, instance = f"hook {point}", None
        try:
            instance = await self.surroundings.instance(deployment, new_id("i"))
            result = await self.command(deployment, instance, name, argv, hooks.timeout, extra)
            self.judge(result, name, "HookFailed")
        except (Failure, OSError) as error:
            self._bus.publish(AppFailed(deployment.spec.name, as_info(error, name)))
        finally:
            if instance is not None:
                await self.surroundings.remove_instance(instance)

    # -- health --------------------------------------------------------------------------------------

    def _target(self, child: Child, health: HealthSpec) -> ProbeTarget:
        host, port, gate = "127.0.0.1", 0, child.gate
        if gate is not None:
            host, port, _ = gate.probe_target(child.side, health.port, child.number)
        deployment, extra = child.deployment, port_variables(child.deployment.spec, child.gate, child.side)
        return ProbeTarget(
            host=host, port=port, alive=lambda: child.alive,
            ready=lambda limit: until_ready(self._keeper, child.id, limit),
            source=lambda: None if gate is None else gate.probe_source(child.side, health.port, child.number),
            execute=lambda argv, timeout: self.command(
                deployment, child.instance, "probe", argv, timeout, extra
            ),
        )  # fmt: skip

    async def until_healthy(self, child: Child, health: HealthSpec | None = None) -> None:
        """Probe until healthy. Raises Permanent (ProbeFailed, ChildExited) with the child's last lines.

        Probes are steered to the child until its gate serves it, or `steer_probe` says otherwise.
        """
        health = health or child.deployment.spec.health
        await self._steer(child)
        try:
            await until_healthy(health, self._target(child, health), child.ended)
            await until_bound(self._keeper, child, health.deadline)
        except Permanent as error:
            lines = tuple(await self.tail(child))
            info = replace(error.info, log=lines) if child.alive else child.exit_failure()
            info = explained(info, self._keeper, child)
            raise Permanent(
                info.reason, info.message, where=info.where, remedy=info.remedy, log=info.log
            ) from None

    async def _steer(self, child: Child) -> None:
        # Also when the gate holds its clients for this very side: the hold may end before the probes do.
        # One of several instances needs no steering.
        gate = child.gate
        if gate is not None and not child.number and gate.state != GateState(Mode.OPEN, child.side):
            await gate.steer_probe(child.side)

    async def healthy_now(self, child: Child) -> bool:
        """Whether a child passes its probe now; three tries' time, so that one lost packet is no verdict."""
        health = msgspec.structs.replace(
            child.deployment.spec.health,
            deadline=3 * child.deployment.spec.health.timeout,
            successes=1,
            alive=0.0,
        )
        await self._steer(child)
        try:
            await until_healthy(health, self._target(child, health), child.ended)
        except Permanent:
            return False
        finally:
            if child.gate is not None and child.gate.state != CLOSED:
                await child.gate.steer_probe(None)
        return True

    async def watch(self, child: Child, eager: float = 0.0) -> AsyncIterator[FailureInfo | None]:
        """Verdict changes, for ever: a failure with its last lines, or None. `eager` counts as probation."""
        health = child.deployment.spec.health
        health = msgspec.structs.replace(health, probation=max(health.probation, eager))
        async for failure in watch(health, self._target(child, health)):
            if failure is None:
                yield None
            else:
                yield replace(failure, log=tuple(await self.tail(child)))
