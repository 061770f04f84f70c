"""Whether an adopted child listens where it should, and what its ports have to do with a failure."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from agent.deploy.child import Child
from agent.deploy.leftovers import found_children
from agent.domain.errors import FailureInfo, Permanent
from agent.domain.spec import SocketMode
from agent.process.adoption import collision, not_bound, way_out
from agent.process.keepers import Keeper

REMEDY = "let it listen on its port in listen (it is in $PORT), or correct listen"


async def until_bound(keeper: Keeper, child: Child, deadline: float) -> None:
    """Wait until an adopted child has bound every port: clients of one it has not would wait for nobody.

    Raises Permanent("PortNotBound" | "ChildExited").
    """
    spec = child.deployment.spec
    if spec.socket is not SocketMode.ADOPT or not spec.listen:
        return
    try:
        async with asyncio.timeout(deadline):
            record = await keeper.taken(child.id, [port.name for port in spec.listen])
            if record.running:
                return
            await child.ended.wait()
    except TimeoutError:
        told = not_bound(keeper.children[child.id], _ports(child))
        raise Permanent("PortNotBound", told, where="listen", remedy=REMEDY) from None
    raise Permanent("ChildExited", "the program ended before it had bound its ports", where="listen")


def explained(failure: FailureInfo, keeper: Keeper, child: Child) -> FailureInfo:
    """A failure of an adopted child, with what it did about its ports if that says why."""
    record = keeper.children.get(child.id)
    if child.deployment.spec.socket is not SocketMode.ADOPT or record is None:
        return failure
    if failure.reason == "ProbeFailed" and (told := not_bound(record, _ports(child))):
        return replace(
            failure,
            reason="PortNotBound",
            message=f"{told}; {failure.message}",
            remedy=REMEDY,
            where="listen",
        )
    if record.trouble:
        return replace(failure, message=f"{failure.message}; {record.trouble}", remedy=way_out(record))
    if failure.reason == "ChildExited":
        beside = [
            keeper.children[found.id]
            for found in found_children(keeper, child.deployment.spec.name)
            if found.running and found.id != child.id
        ]
        if told := collision(record, beside):
            remedy = "name that port in listen too, or write swap: restart"
            return replace(failure, message=f"{failure.message}; {told}", remedy=remedy)
    return failure


def _ports(child: Child) -> dict[str, int]:
    return {port.name: port.port for port in child.deployment.spec.listen}
