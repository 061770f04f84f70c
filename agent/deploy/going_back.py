"""Going back to the last good pair: a flip to its warm child, or starting it again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from agent.deploy.child import Child
from agent.deploy.deployments import Deployment
from agent.deploy.failures import as_info
from agent.deploy.ledger import release_of
from agent.deploy.services import AppContext
from agent.deploy.way_back import SCHEMA_TOO_NEW, WayBack, take_back, way_back
from agent.domain.errors import Failure
from agent.domain.spec import AppSpec

log = logging.getLogger(__name__)


class GoingBack:
    """How one app gets back. `retire` stops a child beside what follows."""

    def __init__(self, app: AppContext, retire: Callable[[Child], None]) -> None:
        self.app = app
        self._retire = retire

    def warm_good(self) -> Child | None:
        """The warm predecessor, if it is of the good pair: one that was superseded has not proved itself."""
        warm, good = self.app.serving.warm, self.app.good
        if warm is None or good is None or not warm.alive:
            return None
        return warm if warm.deployment.pair.spec == good.pair.spec else None

    async def flip(self, warm: Child, bad: Child | None) -> None:
        """To the warm predecessor."""
        serving = self.app.serving
        await serving.stop_restarting()
        if warm.gate is not None:
            await warm.gate.serve(warm.side)
        self.app.gates.lead(warm.gate)
        await serving.take(warm)
        self.app.recovered()
        await self._link_back(warm.deployment)
        if bad is not None:
            self._retire(bad)

    async def _link_back(self, deployment: Deployment) -> None:
        try:
            await self.app.link_current(deployment)
        except OSError as error:  # it serves; the next link, or the next start, brings this in line
            self.app.failed(as_info(error, "current"))

    def way(self, spec: AppSpec) -> WayBack:
        """Whether the good pair runs on the data that the bad one of this specification leaves."""
        good = self.app.good
        assert good is not None
        ledger, release = self.app.services.journal.ledger, release_of(good.pair)
        if ledger.lacks(self.app.name, release):
            return WayBack((), f"what version {good.spec.version} did to the data was taken back")
        return way_back(ledger, self.app.name, release, good.spec.version, spec, spec.down)

    async def start_good(self, bad: Child | None, bad_one: Deployment, way: WayBack) -> bool:
        """No predecessor is warm: hold the clients, stop the bad one, start the last good pair.

        Before that what the bad one did to the data is taken back, where the way says so.

        Returns whether it is healthy; one that cannot be started now is tried again from then on.
        """
        good = self.app.good
        assert good is not None
        serving, gates = self.app.serving, self.app.gates
        serving.stop_watching()
        await serving.stop_restarting()
        gate, side = gates.of(good.spec), serving.free_side()
        if bad is not None:
            if gate is not None and gate is bad.gate:
                await gate.hold(side)
            await serving.retire(bad, take_over=gate is bad.gate)
        await gates.only(gate)
        gates.lead(gate)
        self.app.recovered()
        try:
            if way.downs:
                services = self.app.services
                await take_back(services.processes, services.journal.ledger, bad_one, way, good.spec.version)
            healthy = await serving.bring_back(good, gate, side)
        except (Failure, OSError) as error:
            self.app.failed(as_info(error, "rollback"))
            if self.app.fit(good):
                serving.restart(good, gate, side)
            else:
                told = f"{error}; neither version runs on the data as they are"
                self.app.condition("RollbackBlocked", True, SCHEMA_TOO_NEW, told)
                if gate is not None:
                    await gate.open_ports()
                    await gate.maintain()
            healthy = False
        await self._link_back(good)
        return healthy
