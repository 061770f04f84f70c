"""How the texts of settings are read: one function a kind of value, each raises ValueError."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Address:
    """A place to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(text: str) -> float:
    """500ms, 10s, 10m, 2h, 1d as seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration; write 500ms, 10s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def parse_size(text: str) -> int:
    """0, 512K, 8M or 1G as bytes, in units of 1024. Raises ValueError."""
    match = re.fullmatch(r"(\d{1,9})\s*([KMG]?)i?B?", text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size; write 512K, 8M or 1G")
    return int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]


def parse_count(text: str) -> int:
    """1 to 999. Raises ValueError."""
    if not re.fullmatch(r"[1-9]\d{0,2}", text.strip()):
        raise ValueError(f"{text!r} is not a number from 1 to 999")
    return int(text)


def parse_address(text: str) -> Address:
    """HOST:PORT; without a host 127.0.0.1. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return Address(host.strip("[]") or "127.0.0.1", int(port))


def parse_endpoint(text: str) -> str:
    """http(s)://HOST[:PORT] without a path. Raises ValueError."""
    if not re.fullmatch(r"https?://[^/\s@?#]+/?", text):
        raise ValueError(f"{text!r} is not http(s)://HOST[:PORT]")
    return text.rstrip("/")


def parse_host(text: str) -> str:
    """HOST[:PORT], as artifacts name a registry. Raises ValueError."""
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:[0-9]{1,5})?", text):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    return text


def parse_header(text: str) -> str:
    """The name of an HTTP header. Raises ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", text):
        raise ValueError(f"{text!r} is not the name of a header")
    return text


def parse_label(text: str) -> tuple[str, str]:
    """NAME=VALUE. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9._/-]{1,64}", name):
        raise ValueError(f"{text!r} is not NAME=VALUE")
    return name, value


def parse_absolute(text: str) -> Path:
    """An absolute path of a directory below /. Raises ValueError."""
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or len(path.parts) < 2:
        raise ValueError(f"{text!r} is not an absolute path of a directory below /")
    return path


def parse_rewrite(text: str) -> tuple[str, str]:
    """FROM=TO, two beginnings of URLs. Raises ValueError."""
    begin, equals, instead = text.partition("=")
    if not equals or not re.match(r"[a-z]+://[^/]+/|[^/\s]+:(?!//)", begin):
        raise ValueError("write FROM=TO, two beginnings of URLs, FROM with its host's closing slash")
    return begin, instead


def parse_ports(text: str) -> range:
    """PORT or PORT-PORT. Raises ValueError."""
    first, _, last = text.partition("-")
    if (
        not first.isdigit()
        or not (last or first).isdigit()
        or not 0 < int(first) <= int(last or first) < 65536
    ):
        raise ValueError(f"{text!r} is not PORT or PORT-PORT")
    return range(int(first), int(last or first) + 1)


def parse_signature_rule(text: str) -> tuple[str, Path | None]:
    """BEGINNING=FILE, or BEGINNING=none; see `agent.artifact.trust.rules`. Raises ValueError."""
    beginning, equals, file = text.rpartition("=")
    host = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:[0-9]{1,5})?"
    if not equals or not file:
        raise ValueError("write BEGINNING=FILE, or BEGINNING=none")
    if not re.fullmatch(rf"\*|{host}|[a-z][a-z0-9+.-]*://({host})?/[^\s?#@]*", beginning):
        raise ValueError(f"{beginning!r} is not *, HOST or a URL with its host's closing slash")
    if "/../" in f"{beginning}/":
        raise ValueError(f'{beginning!r} has ".." in it')
    return beginning, None if file == "none" else Path(file)


def parse_program(text: str) -> tuple[str, Path]:
    """NAME=/PATH/OF/PROGRAM. Raises ValueError."""
    name, equals, path = text.partition("=")
    if not equals or not name or not path.startswith("/"):
        raise ValueError(f"{text!r} is not NAME=/PATH/OF/PROGRAM")
    return name, Path(path)


def parse_proxy(text: str) -> str:
    """The URL of a proxy. Raises ValueError."""
    if not re.fullmatch(r"http://(?:[^@/\s]*@)?[^@/\s]+/?", text):
        raise ValueError("not http://[USER:PASSWORD@]HOST:PORT")
    return text
