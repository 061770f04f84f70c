"""Binds the kinds a plan names to the steps that carry them out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agent.deploy.run import Step
from agent.deploy.steps.canary import CanaryStep
from agent.deploy.steps.check import Check
from agent.deploy.steps.drain import Drain
from agent.deploy.steps.fetch import Fetch
from agent.deploy.steps.migrate import Contract, Down, Migrate
from agent.deploy.steps.needs import Needs
from agent.deploy.steps.probe import Probe
from agent.deploy.steps.put import After, Put, Unplace
from agent.deploy.steps.record import Record
from agent.deploy.steps.release import Release
from agent.deploy.steps.reload import Place, Reload
from agent.deploy.steps.render import Render
from agent.deploy.steps.repair import Repair
from agent.deploy.steps.rest import Rest
from agent.deploy.steps.rollout import Rollout, Scale
from agent.deploy.steps.start import Start
from agent.deploy.steps.stop import Stop
from agent.deploy.steps.switch import Switch
from agent.deploy.steps.task import Task
from agent.deploy.steps.verify import Verify

_STEPS: tuple[Step, ...] = (
    Fetch(), Verify(), Release(), Render(), Check(), Task(), Migrate(), Contract(), Down(), Stop(),
    Start(), Probe(), CanaryStep(), Switch(), Drain(), Place(), Reload(), Record(),
    Put(), After(), Unplace(), Repair(), Rollout(), Scale(), Needs(), Rest(),
)  # fmt: skip

CATALOG: Mapping[str, Step] = MappingProxyType({step.kind: step for step in _STEPS})
