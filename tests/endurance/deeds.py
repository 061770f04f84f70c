"""What is pushed to an agent in a soak: good versions, bad ones, and commits of somebody hostile."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.kit.archives import HOSTILE as BAD_TARS
from tests.kit.archives import bomb
from tests.kit.git_server import Content, Link
from tests.kit.odd_archives import BAD_ODD
from tests.kit.world import World
from tests.kit.zips import BAD_ZIPS

GOOD = 0.6  # of all deeds; of the others every second is hostile
HEALTH = {"interval": "20ms", "timeout": "2s", "deadline": "20s", "probation": "100ms"}
SICK = {**HEALTH, "deadline": "400ms"}
BOMB = 80 << 20  # bytes it unpacks to
BOMBS = 0.1  # of hostile archives: it takes a while to find out
ARCHIVES = {**BAD_TARS, **BAD_ODD, **BAD_ZIPS}
PLACED = ("docs", "about")  # apps of files only, beside the one that serves
UP = "../" * 30
# States nobody can read, as text.
TEXTS = {
    "cut off": "schema: 1\napps: {web: [",
    "deep": "schema: 1\napps: " + "[" * 20_000,
    "aliases": "a: &a [x, x]\n"
    + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)),
    "tagged": "!!python/object/apply:os.system ['true']",
    "binary": "\x00\x01\x02",
    "large": "# " + "x" * (5 << 20),
    "newer": "schema: 99\napps: {}",
    "long number": "schema: 1" + "0" * 5000,
}


@dataclass
class Deed:
    """One push. `good`: it is to be deployed; `later` is done while it is."""

    name: str
    state: dict[str, Any] | str
    good: bool = False
    tree: dict[str, Content] | None = None
    later: Callable[[], Awaitable[None]] | None = None


class Deeds:
    """Makes them. Each has a version of its own."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self.world = world
        self._dice = dice
        self._number = 0
        self._good = "0.0"  # of the apps of files: they change with good versions only

    def next(self) -> Deed:
        """Whatever the dice say."""
        if self._dice.random() < GOOD:
            return self.good()
        bad = [self.sick, self.checksum, self.exits, self.migration, self.check, self.turns]
        hostile = [self.archive, self.text, self.escape, self.link]
        return self._dice.choice(self._dice.choice([bad, hostile]))()

    def good(self) -> Deed:
        """A version that serves, with a rendered file and a migration."""
        version = self._good = self._version()
        return Deed("good", self._state(version), good=True)

    # -- bad ---------------------------------------------------------------------------------------

    def sick(self) -> Deed:
        """Its probe fails."""
        version = self._version()
        self.world.pull(f"sick-{version}")
        return Deed("probe fails", self._state(version, health=SICK))

    def checksum(self) -> Deed:
        """Its bytes are others."""
        version = self._version()
        artifact = {**self.world.artifact(version), "checksum": f"sha256:{'0' * 64}"}
        return Deed("wrong checksum", self._state(version, artifact=artifact))

    def exits(self) -> Deed:
        """It ends as soon as it has begun."""
        run = {"command": self.world.shell("echo no licence >&2; exit 3")}
        return Deed("ends at once", self._state(self._version(), run=run))

    def migration(self) -> Deed:
        """Its migration fails."""
        command = self.world.shell("echo no such column >&2; exit 3")
        return Deed("migration fails", self._state(self._version(), migrate=[self._migration(command)]))

    def check(self) -> Deed:
        """Its files are refused by its own check."""
        file = {"content": "x", "target": "etc/x", "check": ["/bin/sh", "-c", "exit 1"]}
        return Deed("check fails", self._state(self._version(), files=[file]))

    def turns(self) -> Deed:
        """It gets sick once it serves, and is rolled back."""
        version = self._version()

        async def sicken() -> None:
            await self.world.box.serving(version)
            self.world.pull(f"sick-{version}")

        state = self._state(version, health={**HEALTH, "probation": "20s"})
        return Deed("sickens", state, later=sicken)

    # -- hostile -----------------------------------------------------------------------------------

    def archive(self) -> Deed:
        """An archive that lies, leads outside, or swells."""
        version, name = self._version(), self._dice.choice(list(ARCHIVES))
        if self._dice.random() < BOMBS:
            name, data = "bomb", bomb(BOMB)
        else:
            data = ARCHIVES[name].data
        path = self.world.box.artifacts / f"web-{version}.tar.gz"
        path.write_bytes(data)
        artifact = {"url": path.as_uri(), "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}"}
        return Deed(f"archive: {name}", self._state(version, artifact=artifact))

    def text(self) -> Deed:
        """A state that nobody can read."""
        name = self._dice.choice(list(TEXTS))
        return Deed(f"state: {name}", f"# {self._version()}\n{TEXTS[name]}")

    def escape(self) -> Deed:
        """A path that leads outside."""
        parts: dict[str, Any] = self._dice.choice(
            [
                {"files": [{"content": "x", "target": f"{UP}tmp/x"}]},
                {"files": [{"template": f"{UP}etc/passwd", "target": "x"}]},
                {"dirs": {"state": f"{UP}tmp/x"}},
                {"secrets": {"A": {"file": f"{UP}etc/shadow"}}},
                {"env": {"A": "{{ ''.__class__.__mro__ }}"}},
                {"env": {"A": "{% for a in range(10 ** 9) %}x{% endfor %}"}},
                {"listen": 22, "run": {"command": ["bin/web"], "user": "daemon"}},
            ]
        )
        return Deed(f"path: {next(iter(parts))}", self._state(self._version(), **parts))

    def link(self) -> Deed:
        """A template that is a link to the outside."""
        state = self._state(self._version(), files=[{"template": "t", "target": "x"}])
        return Deed("link", state, tree={"t": Link("/etc/passwd")})

    # ----------------------------------------------------------------------------------------------

    def _version(self) -> str:
        self._number += 1
        return f"{self._number}.0"

    def _migration(self, command: list[str]) -> dict[str, Any]:
        return {"name": "schema", "command": command}

    def _state(self, version: str, **parts: Any) -> dict[str, Any]:
        base: dict[str, Any] = {
            "health": HEALTH,
            "keep": 2,
            "files": [{"target": "etc/web.conf", "content": f"version = {version}"}],
            "migrate": [self._migration(["/bin/sh", "-c", f": {version}"])],
        }
        web = self.world.app(version, **(base | parts))
        return {"schema": 1, "apps": {"web": web, **{name: self._placed(name) for name in PLACED}}}

    def _placed(self, name: str) -> dict[str, Any]:
        return {
            "version": self._good,
            "files": [{"target": "index.html", "content": self._good}],
            "place": str(self.world.box.directory / "srv" / name),
            "keep": 2,
        }


def text_of(state: dict[str, Any] | str) -> str:
    """As it is committed."""
    return state if isinstance(state, str) else json.dumps(state, indent=1)
