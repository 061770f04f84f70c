"""The condition AgentReplaced: an agent before this one died or hung, and their keeper started this one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from agent.domain.events import Bus, ConditionChanged
from agent.domain.model import Condition, ConditionStatus
from agent.kit.clock import rfc3339
from agent.status.conditions import AGENT_REPLACED

CALM = 3600.0  # seconds this agent has to live until it is told no more
HUNG = "silence"  # how the keeper calls it (`agent.keeper.link`)


async def tell_deaths(bus: Bus, deaths: Mapping[str, Any]) -> None:
    """Say how the last one ended and how many there were, and take it back when this one has lived long."""
    if not deaths.get("count"):
        return
    hung = deaths["how"] == HUNG
    how = "was killed because it did not answer" if hung else f"ended with {deaths['how']}"
    count = f"{deaths['count']} such ends since the keeper began" if deaths["count"] > 1 else "the first one"
    message = f"the agent before this one {how} at {rfc3339(deaths['at'])} ({count}); its log says more"
    reason, now = "AgentHung" if hung else "AgentDied", time.time()
    bus.publish(ConditionChanged("", Condition(AGENT_REPLACED, ConditionStatus.TRUE, reason, message, now)))
    await asyncio.sleep(CALM)
    bus.publish(ConditionChanged("", Condition(AGENT_REPLACED, ConditionStatus.FALSE, "AgentSteady")))
