"""The kinds of deploys in which somebody dies, by name."""

from __future__ import annotations

from tests.crash.beginnings import Cold, First, Guest, Install, Removal
from tests.crash.kind import Kind
from tests.crash.upgrades import (
    Adopted,
    Back,
    Canary,
    Crew,
    Files,
    Moved,
    Relayed,
    Reload,
    Restart,
    Shape,
    Sick,
    Turns,
    Twice,
    Undone,
    Upgrade,
)
from tests.crash.works import Job, Limited

KINDS: dict[str, type[Kind]] = {
    "upgrade": Upgrade,
    "adopted": Adopted,
    "relayed": Relayed,
    "crew": Crew,
    "canary": Canary,
    "reload": Reload,
    "twice": Twice,
    "restart": Restart,
    "sick": Sick,
    "turns": Turns,
    "files": Files,
    "shape": Shape,
    "install": Install,
    "removal": Removal,
    "back": Back,
    "undone": Undone,
    "moved": Moved,
    "guest": Guest,
    "cold": Cold,
    "first": First,
    "job": Job,
    "limited": Limited,
}
