"""New versions of what is there: better ones, bad ones, and some that are taken back."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from tests.crash.kind import HEALTH, Kind
from tests.kit.archives import Tar
from tests.kit.ports import free_port

APART = 3  # migrations of one database


class Upgrade(Kind):
    """An artifact, a rendered file and a migration that expands a database of SQLite."""

    heard: tuple[int, ...] = (4,)  # the first one after which something is collected

    def parts(self, number: int) -> dict[str, Any]:
        database, newest = divmod(number, APART)
        sql = {f"V{n}__t{n}.sql": f"CREATE TABLE t{n} (id INTEGER)" for n in range(1, newest + 2)}
        return {
            "dirs": {"state": "data"},
            "files": [
                {"target": "etc/web.conf", "content": f"number = {number}"},
                *({"target": f"sql/{name}", "content": text} for name, text in sql.items()),
            ],
            "migrate": {"name": "schema", "sql": "sql", "database": f"sqlite:data/{database}.db"},
            "health": HEALTH,
        }

    async def begin(self, number: int) -> str:
        return await self.stage.world.deploy(f"{number}.0", **self.parts(number))

    async def reached(self, number: int) -> bool:
        return await self.serves(f"{number}.0") and (await self.runs(f"{number}.0"))[0] == "succeeded"


FIRST = ("asked spawn .*web-", "symlink 'deployments/", "flip", "ask note child", "asked signal", "commit")


class Twice(Upgrade):
    """The agent dies over an upgrade, and the next one dies while it looks what became of it."""

    again = 12
    alone = False  # as in any upgrade

    def first_death(self, number: int) -> str:
        return FIRST[number % len(FIRST)]

    async def meanwhile(self, number: int) -> None:
        self.stage.arm(self.at, self.whom)


class Adopted(Upgrade):
    """An upgrade of a program that binds the port itself."""

    def parts(self, number: int) -> dict[str, Any]:
        return {"health": HEALTH, "socket": "adopt"}


class Relayed(Upgrade):
    """An upgrade of a program behind a relay."""

    lossless = False  # who passes bytes on takes them along

    def parts(self, number: int) -> dict[str, Any]:
        return {"health": HEALTH, "socket": "relay"}


class Crew(Upgrade):
    """An upgrade of several instances, one after the other."""

    programs = 3

    def parts(self, number: int) -> dict[str, Any]:
        command = [sys.executable, "-S", "bin/web"]
        return {"health": HEALTH, "run": {"command": command, "instances": self.programs}}


class Canary(Upgrade):
    """An upgrade that has a share of the clients first."""

    def parts(self, number: int) -> dict[str, Any]:
        return {"health": HEALTH, "canary": {"percent": 50, "for": "1s"}}


class Reload(Upgrade):
    """Another file, of which the program is told."""

    def parts(self, number: int) -> dict[str, Any]:
        file = {"target": "etc/web.conf", "content": f"number = {number}", "on_change": "reload"}
        command = [sys.executable, "-S", "bin/web"]
        return {
            "health": HEALTH,
            "files": [file],
            "run": {"command": command, "reload": {"command": ["true"]}},
        }

    async def begin(self, number: int) -> str:
        return await self.stage.world.deploy(
            "0.0", env={"WORLD": str(self.stage.world.path)}, **self.parts(number)
        )

    async def reached(self, number: int) -> bool:
        generations = self.box.data.glob("apps/web/instances/*/etc/web.conf")
        shown = [path.read_text() for path in generations]
        return await self.serves("0.0") and shown == [f"number = {number}"]

    def allowed(self, number: int) -> set[str]:
        return {"0.0"}


class Restart(Upgrade):
    """The old one is stopped before the new one starts."""

    def parts(self, number: int) -> dict[str, Any]:
        return {"swap": "restart", "health": HEALTH, "maintenance": {"hold": "20s"}}


class Sick(Upgrade):
    """A version that never gets healthy: what served goes on."""

    heard = (1,)

    def parts(self, number: int) -> dict[str, Any]:
        return {"health": {**HEALTH, "deadline": "300ms" if number else "20s"}}

    async def begin(self, number: int) -> str:
        if number:
            self.stage.world.pull(f"sick-{number}.0")
        return await super().begin(number)

    async def reached(self, number: int) -> bool:
        if number == 0:
            return await super().reached(0)
        gone_back = await self.serves("0.0", state="degraded")
        return gone_back and bool({"failed", "rolled-back"} & set(await self.runs(f"{number}.0")))

    def allowed(self, number: int) -> set[str]:
        return {"0.0"}


class Turns(Sick):
    """A version that gets sick once it serves: it is rolled back."""

    def parts(self, number: int) -> dict[str, Any]:
        return {"health": {**HEALTH, "probation": "10s" if number else "100ms"}}

    async def begin(self, number: int) -> str:
        return await Upgrade.begin(self, number)

    async def reached(self, number: int) -> bool:
        if number and await self.box.get() == (200, f"{number}.0\n"):
            self.stage.world.pull(f"sick-{number}.0")
        return await super().reached(number)

    def allowed(self, number: int) -> set[str]:
        return {"0.0", f"{number}.0"}

    async def outset(self) -> None:
        (self.stage.world.path / "sick-1.0").unlink(missing_ok=True)


class Files(Kind):
    """An app of files only, placed outside by a link."""

    programs = 0
    lossless = False
    heard: tuple[int, ...] = (4,)

    async def begin(self, number: int) -> str:
        data = Tar().file("index.html", f"{number}.0".encode()).end()
        path = self.box.artifacts / f"docs-{number}.tar"
        path.write_bytes(data)
        app = {
            "version": f"{number}.0",
            "artifact": {"url": path.as_uri(), "checksum": f"sha256:{hashlib.sha256(data).hexdigest()}"},
            "files": [{"target": "etc/docs.conf", "content": f"number = {number}"}],
            "place": str(self.stage.places / "www/docs"),
            "after": self.stage.world.shell(f"echo {number} >> $W/after"),
        }
        return await self.box.commit({"schema": 1, "apps": {"docs": app}})

    async def reached(self, number: int) -> bool:
        told = await self.box.app("docs")
        version = f"{number}.0"
        right = told and told["state"] == "placed" and not told.get("run")
        if not right or any((told[p] or {}).get("version") != version for p in ("current", "good")):
            return False
        assert (self.stage.places / "www/docs/index.html").read_text() == version
        return str(number) in self.stage.world.lines("after")


class Back(Upgrade):
    """One of two versions, by turns: what was deployed before is deployed again."""

    heard = (1,)

    async def peace(self) -> None:
        await super().peace()
        for number in (1, 0):
            await self.push(await self.begin(number))
            await self.there(number)

    async def begin(self, number: int) -> str:
        return await self.stage.world.deploy(f"{number % 2}.0", health=HEALTH)

    async def reached(self, number: int) -> bool:
        return await self.serves(f"{number % 2}.0")

    def allowed(self, number: int) -> set[str]:
        return {"0.0", "1.0"}


class Undone(Upgrade):
    """A new version that is taken back while no agent is there."""

    heard, again = (1,), 6

    def parts(self, number: int) -> dict[str, Any]:
        return {"health": HEALTH}

    taken_back = False

    async def begin(self, number: int) -> str:
        self.taken_back = False
        return await super().begin(number)

    async def meanwhile(self, number: int) -> None:
        await self.begin(0)
        self.taken_back = True

    async def reached(self, number: int) -> bool:
        return await (self.serves("0.0") if self.taken_back else super().reached(number))

    def allowed(self, number: int) -> set[str]:
        return {f"{number - 1}.0", f"{number}.0", "0.0"}


class Moved(Undone):
    """A version on another port, that is taken back while no agent is there."""

    lossless = False

    def parts(self, number: int) -> dict[str, Any]:
        return {**super().parts(number), "listen": self.ports[min(number, 1)]}

    async def peace(self) -> None:
        self.ports = (self.box.port, free_port())
        await super().peace()

    async def reached(self, number: int) -> bool:
        wanted = 0 if self.taken_back else number
        port, other = self.ports if wanted == 0 else self.ports[::-1]
        return await self.serves(f"{wanted}.0", port=port) and not await self.answers(other)


class Shape(Files):
    """By turns a program and files that are placed outside: each takes away what the other one showed."""

    heard = (1, 2)

    async def begin(self, number: int) -> str:
        self.programs = number % 2
        if not self.programs:
            return await super().begin(number)
        return await self.stage.world.commit({"docs": self.stage.world.app(f"{number}.0", health=HEALTH)})

    async def reached(self, number: int) -> bool:
        shown = (self.stage.places / "www/docs").is_symlink()
        if number % 2:
            return await self.serves(f"{number}.0", "docs") and not shown
        return await super().reached(number) and not await self.answers(self.box.port)
