"""Which apps there is something to recover of, when an agent begins."""

from __future__ import annotations

from typing import Protocol

from agent.deploy.layout import DataDirectory
from agent.deploy.leftovers import apps_with_children
from agent.deploy.surroundings import Surroundings
from agent.deploy.unfinished import Unfinished
from agent.process.keepers import Keeper
from agent.traffic.unclaimed import Holder, apps_with_ports


class Everything(Keeper, Holder, Protocol):
    """What the keeper holds: children, notes and slots."""


async def apps_found(
    data: DataDirectory,
    keeper: Everything,
    unfinished: Unfinished,
    migrating: set[str],
    surroundings: Surroundings,
) -> list[str]:
    """Apps that serve or did, and those that an agent died over before they could. Raises OSError.

    `migrating` are those of which the ledger tells a migration as running. Of any app that is not found only
    files can be left that nobody needs: those are removed.
    """
    found = {*data.known_apps(), *unfinished.apps, *migrating}
    found |= {*apps_with_children(keeper), *apps_with_ports(keeper)}
    for name in data.all_apps():
        if name not in found:
            await surroundings.sweep(name, ())
    return sorted(found)
