"""The proxies of the environment: HTTP_PROXY, HTTPS_PROXY (or ALL_PROXY), and NO_PROXY, in either case.

Read as curl(1) does. NO_PROXY lists names, which stand for all below them, addresses and networks
(10.0.0.0/8), each with or without a port; `*` is everything.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any
from urllib.request import getproxies_environment, proxy_bypass

from yarl import URL

from agent.artifact.http_access import basic
from agent.domain.errors import OperatorNeeded


def proxy_for(url: URL) -> dict[str, Any]:
    """What an aiohttp request for `url` needs to go through the proxy; nothing without one.

    Beside aiohttp's `proxy` and `proxy_headers`, `headers` are more of the request's own: a request in the
    open carries the proxy's login itself.

    Raises OperatorNeeded (ProxyRefused) for a proxy that is none of http://.
    """
    proxies = getproxies_environment()
    text = proxies.get(url.scheme) or proxies.get("all")
    if not text or not url.host or _direct(url.host, url.port, proxies):
        return {}
    try:
        proxy = URL(text if "://" in text else f"http://{text}")
        if proxy.scheme != "http" or not proxy.host:
            raise ValueError
    except ValueError:
        raise OperatorNeeded(
            "ProxyRefused",
            f"the proxy that the environment names for {url.scheme}:// is not http://[USER:PASSWORD@]HOST:PORT",
            where=url.host,
            remedy=f"correct {url.scheme.upper()}_PROXY in the agent's environment",
        ) from None
    if not proxy.user:
        return {"proxy": proxy}
    login = {"Proxy-Authorization": basic(proxy.user, proxy.password or "")}
    return {"proxy": proxy.with_user(None), "headers" if url.scheme == "http" else "proxy_headers": login}


def _direct(host: str, port: int | None, proxies: dict[str, str]) -> bool:
    """Whether NO_PROXY has it."""
    if proxy_bypass(f"{host}:{port}", proxies):
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return any(_within(address, entry.strip()) for entry in proxies.get("no", "").split(","))


def _within(address: Any, entry: str) -> bool:
    try:
        return "/" in entry and address in ip_network(entry, strict=False)
    except ValueError:
        return False
