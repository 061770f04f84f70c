"""The kinds of deploys in which somebody dies, by name."""

from __future__ import annotations

from tests.crash.beginnings import Cold, First, Guest, Install, Removal
from tests.crash.kind import Kind
from tests.crash.upgrades import Back, Files, Moved, Restart, Sick, Turns, Twice, Undone, Upgrade

KINDS: dict[str, type[Kind]] = {
    "upgrade": Upgrade,
    "twice": Twice,
    "restart": Restart,
    "sick": Sick,
    "turns": Turns,
    "files": Files,
    "install": Install,
    "removal": Removal,
    "back": Back,
    "undone": Undone,
    "moved": Moved,
    "guest": Guest,
    "cold": Cold,
    "first": First,
}
