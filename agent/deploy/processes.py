"""Starting, probing, telling and ending the processes of apps, in terms of deployments.

Everything an app's programs are given is decided here once: user, environment, directories, slots. What
runs to its end is a *command*, what keeps running is a *child*; both are the keeper's, so they outlive
the agent and are found again by their notes.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import msgspec

from agent.config import Settings
from agent.deploy.child import Child, ChildNote
from agent.deploy.deployments import Deployment
from agent.deploy.generations import Owner
from agent.deploy.instance import build_instance
from agent.deploy.layout import DataDirectory
from agent.deploy.leftovers import FoundChild, end_commands, found_children
from agent.deploy.listening import explained, until_bound
from agent.domain.errors import Failure, FailureInfo, Permanent, Transient
from agent.domain.events import AppFailed, Bus, ChildStarted
from agent.domain.model import new_id
from agent.domain.spec import AppSpec, HealthSpec, SocketMode
from agent.kit.files import remove_tree
from agent.process.command import CommandResult, run_command
from agent.process.context import ChildContext, User, find_user
from agent.process.environment import child_environment
from agent.process.health import until_healthy, watch
from agent.process.keepers import Keeper
from agent.process.probe import ProbeTarget
from agent.process.stop import end_group, signal_number, stop
from agent.traffic.gate import SlotGate
from agent.traffic.ports import variables
from agent.traffic.state import Gate

log = logging.getLogger(__name__)

DIRECTORY_VARIABLES = {"state": "STATE_DIRECTORY", "cache": "CACHE_DIRECTORY", "logs": "LOGS_DIRECTORY"}


class Processes:
    """All processes of all apps, through the keeper."""

    def __init__(self, keeper: Keeper, bus: Bus, data: DataDirectory, settings: Settings) -> None:
        self._keeper = keeper
        self._bus = bus
        self._data = data
        self._settings = settings

    # -- what programs are given ---------------------------------------------------------------------

    def owner(self, spec: AppSpec) -> Owner | None:
        """Uid and gid of the app's user, None for the agent's own. Raises OperatorNeeded."""
        user = self._user(spec)
        return None if user.uid is None or user.gid is None else (user.uid, user.gid)

    def _user(self, spec: AppSpec) -> User:
        return find_user(spec.run.user if spec.run else "", self._settings.users)

    async def instance(self, deployment: Deployment, name: str) -> Path:
        """Build an instance directory for a deployment, and the app's own directories. Raises OSError."""
        return await asyncio.to_thread(self._build_instance, deployment, name)

    def _build_instance(self, deployment: Deployment, name: str) -> Path:
        spec = deployment.spec
        directory = self._data.app(spec.name)
        owner = self.owner(spec)
        dirs = {}
        for kind, shown in spec.dirs.items():
            path = directory.dirs / kind
            if not path.is_dir():
                path.mkdir(mode=0o750)
                if owner is not None:
                    os.chown(path, *owner)
            dirs[shown] = path
        path = directory.instances / name
        build_instance(path, deployment.release, deployment.generation, dirs)
        return path

    async def remove_instance(self, instance: Path) -> None:
        """Remove an instance directory nobody lives in."""
        await asyncio.to_thread(remove_tree, instance)

    def _context(self, deployment: Deployment, instance: Path, extra: Mapping[str, str]) -> ChildContext:
        spec = deployment.spec
        directory = self._data.app(spec.name)
        directories = {
            DIRECTORY_VARIABLES[kind]: directory.dirs / kind
            for kind in spec.dirs
            if kind in DIRECTORY_VARIABLES
        }
        user = self._user(spec)
        environment = child_environment(
            app=spec.name,
            version=spec.version,
            box=self._data.box,
            user=user,
            home=instance,
            pass_env=self._settings.pass_env,
            base=os.environ,
            spec_env=spec.env,
            directories=directories,
            extra={**variables((*spec.listen, *spec.udp), {}), **extra},
        )
        return ChildContext(spec.name, instance, environment, user)

    # -- children ------------------------------------------------------------------------------------

    async def start(
        self, deployment: Deployment, gate: Gate | None, side: int, run: str, instance: Path | None = None
    ) -> Child:
        """Start a child of a deployment. Raises Failure."""
        spec = deployment.spec
        assert spec.run is not None
        name = new_id(spec.name)
        if instance is None:
            instance = await self.instance(deployment, name)
        self._user(spec)  # first of all: a start that cannot be must not cost the gate anything
        note = ChildNote(spec.name, deployment.pair.spec, side, str(instance), run)
        if gate is not None:
            # nginx uses an inherited socket as it finds it, and its workers would block in accept
            await gate.prepare(side, blocking="NGINX" not in spec.env)
        context = self._context(deployment, instance, _ports(spec, gate, side))
        record = await context.spawn(
            self._keeper,
            name,
            spec.run.command,
            slots=gate.slots(side) if gate is not None else [],
            adopt=spec.socket is SocketMode.ADOPT,
            note=msgspec.json.encode(note).decode(),
        )
        self._bus.publish(ChildStarted(spec.name, name, record.pid))
        return Child(name, record.pid, side, deployment, instance, gate)

    async def until_end(self, child: Child) -> tuple[str, ...]:
        """Wait for the child's end; returns its last lines."""
        record = await self._keeper.wait(child.id)
        tail = await self._keeper.tail(child.id)
        child.code, child.signal = record.code, record.signal
        child.ended.set()
        return tuple(tail)

    async def stop(self, child: Child) -> None:
        """Stop a child by its ladder, whole group, and forget it. Not interrupted by cancellation."""
        assert child.deployment.spec.run is not None
        child.expected = True
        if child.id not in self._keeper.children:
            return  # ended and forgotten already
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
        if child.id not in self._keeper.children:
            return
        await end_group(self._keeper, child.id)
        await child.ended.wait()
        await self._keeper.forget(child.id)
        await self.remove_instance(child.instance)

    async def end(self, child: str) -> None:
        """End and forget a child of an earlier agent that has no deployment, or that ended already."""
        await end_group(self._keeper, child)
        await self._keeper.wait(child)
        await self._keeper.forget(child)

    async def tail(self, child: Child, lines: int = 200) -> list[str]:
        """The last output lines of a child."""
        return await self._keeper.tail(child.id, lines)

    async def reload(self, child: Child, spec: AppSpec) -> None:
        """Tell a child to read its files again. Raises Permanent("ReloadFailed")."""
        assert spec.run is not None
        reload = spec.run.reload
        if reload.command:
            await self.must(child.deployment, child.instance, "reload", reload.command, 60.0, "ReloadFailed")
        elif not await self._keeper.signal(child.id, signal_number(reload.signal), group=False):
            raise Permanent("ReloadFailed", "the child is gone", where=child.id)

    # -- commands ------------------------------------------------------------------------------------

    async def command(
        self,
        deployment: Deployment,
        instance: Path,
        name: str,
        argv: tuple[str, ...],
        timeout: float,
        extra: Mapping[str, str] | None = None,
    ) -> CommandResult:
        """Run a command as the app's user in an instance directory. Raises Failure when it cannot start."""
        context = self._context(deployment, instance, extra or {})
        note = msgspec.json.encode({"app": deployment.spec.name, "command": name.split()[0]}).decode()
        return await run_command(
            self._keeper, name=name, argv=argv, context=replace(context, note=note), timeout=timeout
        )

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
        name = f"hook {point}"
        instance = await self.instance(deployment, new_id("i"))
        try:
            result = await self.command(deployment, instance, name, argv, hooks.timeout, extra)
            self.judge(result, name, "HookFailed")
        except Failure as error:
            self._bus.publish(AppFailed(deployment.spec.name, error.info))
        finally:
            await self.remove_instance(instance)

    # -- health --------------------------------------------------------------------------------------

    def _target(self, child: Child, health: HealthSpec) -> ProbeTarget:
        host, port, gate = "127.0.0.1", 0, child.gate
        if gate is not None:
            host, port, _ = gate.probe_target(child.side, health.port)
        deployment, extra = child.deployment, _ports(child.deployment.spec, child.gate, child.side)
        return ProbeTarget(
            host=host, port=port, alive=lambda: child.alive,
            source=lambda: None if gate is None else gate.probe_source(child.side, health.port),
            execute=lambda argv, timeout: self.command(
                deployment, child.instance, "probe", argv, timeout, extra
            ),
        )  # fmt: skip

    async def until_healthy(self, child: Child, health: HealthSpec | None = None) -> None:
        """Probe until healthy. Raises Permanent (ProbeFailed, ChildExited) with the child's last lines."""
        health = health or child.deployment.spec.health
        if isinstance(child.gate, SlotGate) and child.gate.state.side != child.side:
            await child.gate.steer_probe(child.side)
        try:
            await until_healthy(health, self._target(child, health), child.ended)
            await until_bound(self._keeper, child, health.deadline)
        except Permanent as error:
            await asyncio.sleep(0)
            raise await self._told(child, error) from None

    async def _told(self, child: Child, error: Permanent) -> Permanent:
        """The failure with the child's last lines, and its exit if that is what happened."""
        log_lines = tuple(await self.tail(child)) if child.id in self._keeper.children else ()
        info = child.exit_failure(log_lines) if not child.alive else replace(error.info, log=log_lines)
        info = explained(info, self._keeper, child)
        return Permanent(info.reason, info.message, where=info.where, remedy=info.remedy, log=info.log)

    async def healthy_now(self, child: Child) -> bool:
        """Whether a child passes its probe now; three tries' time, so that one lost packet is no verdict."""
        health = msgspec.structs.replace(
            child.deployment.spec.health,
            deadline=3 * child.deployment.spec.health.timeout,
            successes=1,
            alive=0.0,
        )
        if isinstance(child.gate, SlotGate) and child.gate.state.side != child.side:
            await child.gate.steer_probe(child.side)
        try:
            await until_healthy(health, self._target(child, health), child.ended)
        except Permanent:
            return False
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

    # -- after a restart of the agent ----------------------------------------------------------------

    def found(self, app: str) -> list[FoundChild]:
        """Children of an app that the keeper had when this agent came."""
        return found_children(self._keeper, app)

    async def end_commands(self, app: str) -> None:
        """Commands an earlier agent left: a migration is waited for, so it never runs twice; others end."""
        await end_commands(self._keeper, app)


def _ports(spec: AppSpec, gate: Gate | None, side: int) -> dict[str, str]:
    """The variables that say where the child of `side` listens."""
    ports = (*spec.listen, *spec.udp)
    return variables(ports, gate.child_ports(side) if gate is not None else {})
