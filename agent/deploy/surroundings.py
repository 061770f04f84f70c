"""What every program of an app is given, decided here once: user, directory, environment, ports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from pathlib import Path

from agent.config import Settings
from agent.deploy.deployments import Deployment
from agent.deploy.generations import Owner, repair_generation
from agent.deploy.instance import build_instance
from agent.deploy.layout import DataDirectory
from agent.deploy.places import Places
from agent.deploy.wholeness import Wholeness
from agent.domain.spec import AppSpec
from agent.kit.files import remove_tree
from agent.process.context import ChildContext, User, find_user
from agent.process.environment import child_environment
from agent.process.written import NAME
from agent.traffic.ports import variables
from agent.traffic.state import Gate

DIRECTORY_VARIABLES = {"state": "STATE_DIRECTORY", "cache": "CACHE_DIRECTORY", "logs": "LOGS_DIRECTORY"}


class Surroundings:
    """Makes them, for all apps."""

    def __init__(self, data: DataDirectory, settings: Settings, wholeness: Wholeness) -> None:
        self.wholeness = wholeness
        self._data = data
        self._settings = settings

    def user(self, spec: AppSpec) -> User:
        """Who the app's programs run as. Raises OperatorNeeded."""
        return find_user(spec.user, self._settings.users)

    def owner(self, spec: AppSpec) -> Owner | None:
        """Uid and gid of the app's user, None for the agent's own. Raises OperatorNeeded."""
        if spec.run is None and spec.job is None:  # files that nobody but the agent has to write
            return None
        user = self.user(spec)
        return None if user.uid is None or user.gid is None else (user.uid, user.gid)

    def places(self, app: str) -> Places:
        """Where an app without a program puts its files."""
        return Places(self._data.app(app), self._data.root, self._settings.place_roots)

    async def instance(self, deployment: Deployment, name: str) -> Path:
        """Build an instance directory for a deployment, and the app's own directories.

        Release and rendered files are put right first. Raises Transient (ReleaseDamaged), OSError.
        """
        await self.wholeness.ensure(deployment.spec, deployment.pair.release)
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
        if deployment.generation is not None:  # no program begins with what somebody changed
            repair_generation(deployment.generation, spec.files, owner)
        path = directory.instances / name
        try:
            build_instance(path, deployment.release, deployment.generation, dirs)
        except OSError:
            remove_tree(path)
            raise
        return path

    async def remove_instance(self, instance: Path) -> None:
        """Remove an instance directory nobody lives in. Raises OSError."""
        await asyncio.to_thread(remove_tree, instance)

    async def sweep(self, app: str, lived_in: Collection[Path]) -> None:
        """Remove what an agent that was killed left half-made of an app. Raises OSError."""
        await asyncio.to_thread(self._sweep, app, lived_in)

    def _sweep(self, app: str, lived_in: Collection[Path]) -> None:
        directory = self._data.app(app)
        for path in directory.instances.iterdir():
            if path not in lived_in:
                remove_tree(path)
        for parent in (directory.root, directory.deployments, directory.generations):
            for path in parent.glob(".*.tmp"):
                remove_tree(path)

    def context(self, deployment: Deployment, instance: Path, extra: Mapping[str, str]) -> ChildContext:
        """Everything about a program but the program itself. Raises OperatorNeeded."""
        spec = deployment.spec
        directory = self._data.app(spec.name)
        directories = {
            DIRECTORY_VARIABLES[kind]: directory.dirs / kind
            for kind in spec.dirs
            if kind in DIRECTORY_VARIABLES
        }
        user = self.user(spec)
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
        size, count = self._settings.app_log_size, self._settings.app_log_files
        log = (str(directory.root / NAME), size, count) if size else None
        return ChildContext(spec.name, instance, environment, user, log=log)


def port_variables(spec: AppSpec, gate: Gate | None, side: int) -> dict[str, str]:
    """The variables that say where the child of `side` listens."""
    ports = (*spec.listen, *spec.udp)
    return variables(ports, gate.child_ports(side) if gate is not None else {})
