"""Programs with several ports, addresses, families and workers through the whole agent: nothing is lost."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kit.box import Box
from tests.kit.load import Load, load
from tests.kit.ports import free_port

PREFORK = str(Path(__file__).with_name("prefork.py"))
SERVERS = Path(__file__).parents[2] / "benchmarks" / "servers"
ANSWERS = 30  # of each version on each port


@asynccontextmanager
async def loads(places: Mapping[str, tuple[str, int]]) -> AsyncIterator[dict[str, Load]]:
    """New connections to each place, by name."""
    async with AsyncExitStack() as stack:
        running = {
            name: await stack.enter_async_context(load(host, port, 2))
            for name, (host, port) in places.items()
        }
        yield running
        for each in running.values():
            await each.stop()


async def swapped(
    box: Box,
    places: Mapping[str, tuple[str, int]],
    parts: Callable[[str], dict[str, Any]],
    says: Callable[[str, str], str],
) -> None:
    """Three versions follow one another under load on every place; `says` is what is answered there."""
    versions = ["1.0", "2.0", "3.0"]
    await box.deploy(versions[0], **parts(versions[0]))
    await box.start()
    await box.proven(versions[0])
    async with loads(places) as running:
        for version in versions:
            if version != versions[0]:
                await box.deploy(version, push=True, **parts(version))
                await box.proven(version)
            for name, each in running.items():
                await each.answered(says(name, version), ANSWERS)
    for name, each in running.items():
        assert each.failures == {}, name
        assert set(each.counts) == {says(name, version) for version in versions}


def prefork(version: str, *way: str, **parts: Any) -> dict[str, Any]:
    """The server with workers, with a probe of its port `http`."""
    return {
        "artifact": None,
        "run": {"command": [sys.executable, "-S", PREFORK, version, *way]},
        "health": {"http": "/", "port": "http", "interval": "50ms", "deadline": "20s", "probation": "200ms"},
        **parts,
    }


async def test_ports_at_addresses_of_both_families_are_handed_over_as_einhorn_does_it(box: Box) -> None:
    ports = {name: free_port() for name in ("http", "admin", "six", "both")}
    addresses = {"http": "127.0.0.1", "admin": "127.0.0.2", "six": "::1", "both": "::"}
    listen = {name: {"port": ports[name], "address": address} for name, address in addresses.items()}
    places = {name: (address, ports[name]) for name, address in addresses.items()}
    places["both"] = ("127.0.0.1", ports["both"])
    places["both again"] = ("::1", ports["both"])
    await swapped(
        box, places, lambda version: prefork(version, "einhorn", listen=listen),
        lambda name, version: f"{name.split()[0]}-{version}",
    )  # fmt: skip


@pytest.mark.parametrize("socket", ["adopt", "relay"])
async def test_ports_at_addresses_of_both_families_are_adopted_or_relayed(box: Box, socket: str) -> None:
    ports = {name: free_port() for name in ("http", "admin", "six", "both")}
    addresses = {"http": "127.0.0.1", "admin": "127.0.0.2", "six": "::1", "both": "::"}
    listen = {name: {"port": ports[name], "address": address} for name, address in addresses.items()}
    binds = addresses if socket == "adopt" else dict.fromkeys(addresses, "127.0.0.1")
    way = ["bind", *(word for name, address in binds.items() for word in (address, name))]
    places = {name: (address, ports[name]) for name, address in addresses.items()}
    await swapped(
        box, places, lambda version: prefork(version, *way, listen=listen, socket=socket),
        lambda name, version: f"{name}-{version}",
    )  # fmt: skip
    assert (await box.app())["child"]["restarts"] == 0


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
async def test_a_real_server_with_workers_takes_its_sockets_over(box: Box, server: str) -> None:
    second = free_port()
    commands = {
        "gunicorn": ["-m", "gunicorn", "--workers", "2", "wsgi:app"],
        "uvicorn": ["-m", "uvicorn", "--workers", "2", "--no-access-log", "--fd", "3", "asgi:app"],
    }
    listen = {"http": box.port, "second": second} if server == "gunicorn" else {"http": box.port}
    places = {name: ("127.0.0.1", port) for name, port in listen.items()}

    def parts(version: str) -> dict[str, Any]:
        health = {"http": "/", "port": "http", "interval": "50ms", "deadline": "25s", "probation": "200ms"}
        return {
            "artifact": None,
            "files": [
                {"target": name, "content": f"# of {version}\n{(SERVERS / name).read_text()}"}
                for name in ("wsgi.py", "asgi.py")
            ],
            "run": {"command": [sys.executable, *commands[server]]},
            "listen": listen,
            "health": health,
        }

    await swapped(box, places, parts, lambda _, version: version)


@pytest.mark.parametrize(
    ("binds", "address"), [("0.0.0.0", "::"), ("::", "::"), ("::", "0.0.0.0"), ("::1", "::1")]
)
async def test_an_unchanged_server_of_either_family_serves_at_a_port_of_either(
    box: Box, binds: str, address: str
) -> None:
    hosts = {"::": ["127.0.0.1", "::1"], "0.0.0.0": ["127.0.0.1"], "::1": ["::1"]}[address]

    def parts(version: str) -> dict[str, Any]:
        return {
            "artifact": None,
            "files": [{"target": "www/index.html", "content": version}],
            "run": {
                "command": [sys.executable, "-m", "http.server", "-b", binds, "-d", "www", str(box.port)]
            },
            "listen": {"http": {"port": box.port, "address": address}},
            "socket": None,
            "health": {"http": "/", "interval": "50ms", "deadline": "20s", "probation": "200ms"},
            "drain": {"connections": True},  # it ends in the middle of what it does
        }

    await swapped(box, {host: (host, box.port) for host in hosts}, parts, lambda _, version: version)
