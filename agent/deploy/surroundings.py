"""What every program of an app is given, decided here once: user, directory, environment, ports."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import Settings
from agent.deploy.deployments import Deployment
from agent.deploy.generations import Owner, repair_generation
from agent.deploy.instance import CONTAINERS, TMP, build_instance, is_instance, tidy_instance
from agent.deploy.layout import DataDirectory
from agent.deploy.places import Places, drop_views
from agent.deploy.wholeness import Wholeness
from agent.domain.spec import AppSpec, IsolationSpec, LimitsSpec, RunSpec
from agent.kit.files import remove_tree, sync_directory, write_atomically
from agent.kit.tasks import uninterrupted
from agent.process.bounds import Bounds, size_words
from agent.process.cgroups import Cgroups
from agent.process.context import ChildContext
from agent.process.environment import child_environment
from agent.process.isolation import Home, Leave, confinement, mounted, tier_of
from agent.process.unpacking import LINK, of_appimage
from agent.process.unpacking import variables as unpacking
from agent.process.users import DYNAMIC, User, dynamic_id, find_user
from agent.process.written import NAME
from agent.traffic.ports import variables
from agent.traffic.state import Gate

if TYPE_CHECKING:
    from agent.process.oci.container import Container, Host

DIRECTORY_VARIABLES = {"state": "STATE_DIRECTORY", "cache": "CACHE_DIRECTORY", "logs": "LOGS_DIRECTORY"}


class Surroundings:
    """Makes them, for all apps."""

    def __init__(self, data: DataDirectory, settings: Settings, wholeness: Wholeness) -> None:
        self.wholeness = wholeness
        self._data = data
        self._settings = settings
        self._leave = Leave(settings.weakest_isolation, settings.isolation_roots, settings.private_places())
        self.cgroups = Cgroups(data.box, device=data.root)
        self._lodgers: Counter[Path] = Counter()
        self._left: set[Path] = set()  # of these, nobody but lodgers is left
        self._host: Host | None = None  # of containers, whose code is loaded for whoever has some

    def user(self, spec: AppSpec) -> User:
        """Who the app's programs run as, in an isolation that is allowed. Raises OperatorNeeded."""
        tier_of(isolated(spec, self._leave).isolation, self._leave.weakest)
        run, settings = spec.run or RunSpec(command=()), self._settings
        return find_user(
            spec.user, settings.users, run.group, settings.groups, lambda: self._dynamic(spec.name)
        )

    def _dynamic(self, app: str) -> int:
        """The number of an app's dynamic user: kept, its files have it. Raises OperatorNeeded, OSError."""
        numbers = {}
        for name in {app, *self._data.known_apps()}:
            with contextlib.suppress(FileNotFoundError, ValueError):
                numbers[name] = int((self._data.apps / name / DYNAMIC).read_text())
        if app not in numbers:
            numbers[app] = dynamic_id(app, set(numbers.values()))
            write_atomically(self._data.app(app).root / DYNAMIC, f"{numbers[app]}\n".encode())
        return numbers[app]

    def owner(self, spec: AppSpec) -> Owner | None:
        """Uid and gid of the app's user, None for the agent's own. Raises OperatorNeeded."""
        if spec.run is None and spec.job is None:  # files that nobody but the agent has to write
            return None
        user = self.user(spec)
        return None if user.uid is None or user.gid is None else (user.uid, user.gid)

    def places(self, app: str) -> Places:
        """Where an app without a program puts its files."""
        return Places(self._data.app(app), self._data.root, self._settings.place_roots)

    async def instance(self, deployment: Deployment, name: str, lived_in: Collection[str] = ()) -> Path:
        """Build an instance directory for a deployment, and the app's own directories.

        Release and rendered files are put right first. On a disk that cannot be written to, one that an
        earlier child of the deployment has left, so that it is not among those `lived_in`, will do.
        Raises Transient (ReleaseDamaged), OSError.
        """
        try:
            await self.wholeness.ensure(deployment.spec, deployment.pair.release)
            return await asyncio.to_thread(self._build_instance, deployment, name)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            instances = self._data.app(deployment.spec.name).instances
            left = [path for path in instances.iterdir() if str(path) not in lived_in]
            for path in left:
                if is_instance(path, deployment.release, deployment.generation):
                    return path
            raise

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
                sync_directory(directory.dirs)
            dirs[shown] = path
        brought = (deployment.release, deployment.generation)
        if "cache" in spec.dirs and not any(os.path.lexists(tree / LINK) for tree in brought if tree):
            dirs.setdefault(LINK, directory.dirs / "cache")
        if deployment.generation is not None:  # no program begins with what somebody changed
            repair_generation(deployment.generation, spec.files, owner)
        path = directory.instances / name
        try:
            build_instance(path, deployment.release, deployment.generation, dirs)
            if _has_tmp(spec, self._leave):
                (path / TMP).mkdir(mode=0o700)
                if owner is not None:
                    os.chown(path / TMP, *owner)
        except OSError:
            remove_tree(path)
            raise
        return path

    async def remove_instance(self, instance: Path) -> None:
        """Remove an instance directory nobody lives in, once its last lodger is gone. Raises OSError."""
        if instance in self._lodgers:
            self._left.add(instance)
        else:
            await asyncio.to_thread(remove_tree, instance)

    @contextlib.asynccontextmanager
    async def lodging(self, instance: Path) -> AsyncIterator[None]:
        """While somebody works in an instance directory, it stays, whoever else leaves it."""
        self._lodgers[instance] += 1
        try:
            yield
        finally:
            self._lodgers[instance] -= 1
            if not self._lodgers[instance]:
                del self._lodgers[instance]
                if instance in self._left:
                    self._left.remove(instance)
                    await uninterrupted(self.remove_instance(instance), name=f"remove {instance.name}")

    async def sweep(self, app: str, lived_in: Collection[Path]) -> None:
        """Remove what an agent that was killed left half-made of an app. Raises OSError."""
        await asyncio.to_thread(self._sweep, app, lived_in)

    def _sweep(self, app: str, lived_in: Collection[Path]) -> None:
        directory = self._data.app(app)
        for path in directory.instances.iterdir():
            if path not in lived_in:
                if (path / CONTAINERS).is_dir():
                    _remove_groups(app, path / CONTAINERS, self.cgroups.box)
                remove_tree(path)
            else:
                tidy_instance(path)
        deployments = [path for path in directory.deployments.iterdir() if path.is_dir()]
        for parent in (directory.root, directory.deployments, directory.generations, *deployments):
            for path in parent.glob(".*.tmp"):
                remove_tree(path)
        for deployment in deployments:
            drop_views(deployment)

    def context(
        self,
        deployment: Deployment,
        instance: Path,
        extra: Mapping[str, str],
        *,
        command: bool = True,
        on_host: bool = False,
    ) -> ChildContext:
        """Everything about a program but the program itself; `command`: it runs to its end.

        `on_host`: it is one of ours, and in no container. Raises OperatorNeeded.
        """
        spec = deployment.spec
        directory = self._data.app(spec.name)
        contained = spec.container is not None and not on_host
        directories = {
            DIRECTORY_VARIABLES[kind]: Path("/", shown) if contained else directory.dirs / kind
            for kind, shown in spec.dirs.items()
            if kind in DIRECTORY_VARIABLES
        }
        if "cache" in spec.dirs:
            directories |= unpacking(directories["CACHE_DIRECTORY"])
        if _has_tmp(spec, self._leave):
            directories["TMPDIR"] = instance / TMP
        user = self.user(spec)
        home = replace(user, home="") if contained else user  # a home of this host is none of the container's
        environment = child_environment(
            app=spec.name,
            version=spec.version,
            box=self._data.box,
            user=home,
            home=Path("/") if contained else instance,
            pass_env=self._settings.pass_env,
            base=os.environ,
            spec_env=spec.env,
            directories=directories,
            extra={**self._of_image(spec, instance), **variables((*spec.listen, *spec.udp), {}), **extra},
        )
        size, count = self._settings.app_log_size, self._settings.app_log_files
        log = (str(directory.root / NAME), size, count) if size else None
        bounds = self._bounds(deployment, instance, extra, command, contained)
        container = self._container(deployment) if contained else None
        return ChildContext(
            spec.name, instance, environment, user, log=log, bounds=bounds, container=container
        )

    def _of_image(self, spec: AppSpec, instance: Path) -> Mapping[str, str]:
        """What the app's program has to be told if it is an AppImage."""
        run = spec.run
        if run is None or not run.command or spec.container is not None or self.tier(spec) == "none":
            return {}
        cache = self._data.app(spec.name).dirs / "cache" if "cache" in spec.dirs else None
        return of_appimage(instance / run.command[0], cache)

    def _container(self, deployment: Deployment) -> Container | None:
        """What an app's programs run in; None: the host."""
        spec, directory = deployment.spec, self._data.app(deployment.spec.name)
        if spec.container is None or deployment.release is None:
            return None
        from agent.process.oci.container import Container, Host

        self._host = self._host or Host(self._settings.container_runtime)
        isolation = isolated(spec, self._leave).isolation
        return Container(
            self._host,
            spec.name,
            deployment.release,
            deployment.generation,
            tuple((f"/{shown}", directory.dirs / kind) for kind, shown in spec.dirs.items()),
            frozenset(spec.env),
            spec.container.hostname,
            apart="net" in isolation.namespaces,
            opened=mounted(isolation, self._leave),
            box=self.cgroups.box,
        )

    def tier(self, spec: AppSpec) -> str:
        """The isolation of an app's programs; also of those that were started while less was allowed."""
        isolation = isolated(spec, self._leave).isolation
        return isolation.tier or tier_of(isolation, self._leave.weakest)[0]

    async def limit_hit(self, spec: AppSpec, child: str) -> str:
        """The limit by which a process of a limited child was killed, for people; "" when none was."""
        limits = _limits(spec)
        if limits == LimitsSpec():
            return ""
        killed = await asyncio.to_thread(self.cgroups.killed, spec.name, child)
        return f"the memory limit of {size_words(limits.memory)}" if killed else ""

    async def ungroup(self, spec: AppSpec, child: str) -> None:
        """Remove the control groups of a child that has ended."""
        if _limits(spec) != LimitsSpec():
            await asyncio.to_thread(self.cgroups.remove, spec.name, child)
        if spec.container is not None:
            from agent.process.oci import groups

            await asyncio.to_thread(groups.remove, spec.name, child, self.cgroups.box)

    def _bounds(
        self, deployment: Deployment, instance: Path, extra: Mapping[str, str], command: bool, contained: bool
    ) -> Bounds:
        """What a program may use, and what is kept from it. Raises OperatorNeeded."""
        spec, directory = deployment.spec, self._data.app(deployment.spec.name)
        run, slots = isolated(spec, self._leave), spec.socket.slots
        release = () if deployment.release is None else (deployment.release.resolve(),)
        home = Home(
            read=(*release, directory.generations, instance),
            write=tuple(directory.dirs / kind for kind in spec.dirs),
            tmp=instance / TMP,
        )
        told = {int(text) for name, text in extra.items() if name.startswith("PORT") and text.isdigit()}
        ports = set() if slots else told | {port.port for port in spec.listen}
        if contained:
            tier, _ = tier_of(run.isolation, self._leave.weakest)
            return Bounds(run.umask, run.nice, run.oom, run.rlimits, run.limits, self.cgroups, tier)
        tier, order = confinement(run.isolation, self._leave, home, ports=ports, slots=slots, command=command)
        return Bounds(run.umask, run.nice, run.oom, run.rlimits, run.limits, self.cgroups, tier, order)


def _remove_groups(app: str, containers: Path, box: str) -> None:
    from agent.process.oci import groups

    for path in containers.iterdir():
        groups.remove(app, path.name, box)


def _limits(spec: AppSpec) -> LimitsSpec:
    program = spec.run or spec.job
    return program.limits if program is not None else LimitsSpec()


def isolated(spec: AppSpec, leave: Leave) -> RunSpec:
    """How an app's programs run. Those of an app of files only are for the host, as far as allowed."""
    if spec.run is not None:
        return spec.run
    if spec.job is not None:
        return RunSpec(command=(), limits=spec.job.limits, isolation=spec.job.isolation)
    tier = "none" if leave.weakest == "none" else ""
    return RunSpec(command=(), isolation=IsolationSpec(tier=tier))


def _has_tmp(spec: AppSpec, leave: Leave) -> bool:
    """Whether an app's programs have a place of their own for temporary files. Raises OperatorNeeded."""
    isolation = isolated(spec, leave).isolation
    if spec.container is not None:
        return False
    return tier_of(isolation, leave.weakest)[0] == "strict" and "tmp" not in isolation.private


def port_variables(spec: AppSpec, gate: Gate | None, side: int) -> dict[str, str]:
    """The variables that say where the child of `side` listens."""
    ports = (*spec.listen, *spec.udp)
    return variables(ports, gate.child_ports(side) if gate is not None else {})
