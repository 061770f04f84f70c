"""A built image under runc, as engines run it: the OCI runtime spec's config.json from the image's own.

Read-only root, the image's user, no capability, no new privileges, the engines' default seccomp profile,
own pid, mount, ipc and uts namespaces; the network is the host's, so that loopback is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kit.image import Image, run

SECCOMP = Path("/usr/share/containers/seccomp.json")


def bundle(
    directory: Path, image: Image, environment: Mapping[str, str], volumes: Mapping[Path, str]
) -> Path:
    """Make a bundle: `environment` is added to the image's, `volumes` are bound at PLACE, or PLACE:ro."""
    directory.mkdir()
    run("runc", "spec", "--bundle", directory)
    path = directory / "config.json"
    spec = json.loads(path.read_text())
    uid, _, gid = image.config["User"].partition(":")
    spec["root"] = {"path": str(image.tree), "readonly": True}
    spec["hostname"] = "box"
    spec["process"] |= {
        "args": [*image.config["Entrypoint"], *(image.config.get("Cmd") or ())],
        "env": [*image.config["Env"], *(f"{name}={value}" for name, value in environment.items())],
        "cwd": image.config.get("WorkingDir") or "/",
        "user": {"uid": int(uid), "gid": int(gid)},
        "capabilities": {
            name: [] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")
        },
        "noNewPrivileges": True,
        "terminal": False,
    }
    bound = []
    for source, where in volumes.items():
        place, _, only = where.partition(":")
        bound.append(_mount("bind", place, str(source), "bind", only or "rw"))
    spec["mounts"] += [_mount("tmpfs", "/tmp", "tmpfs", "nosuid", "nodev", "mode=1777"), *bound]
    namespaces = [n for n in spec["linux"]["namespaces"] if n["type"] != "network"]
    spec["linux"] |= {"namespaces": namespaces, "seccomp": default_seccomp()}
    path.write_text(json.dumps(spec, indent=1))
    return directory


def _mount(kind: str, place: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": place, "type": kind, "source": source, "options": list(options)}


def default_seccomp(architecture: str = "amd64") -> dict[str, Any]:
    """The engines' default profile (Debian's, of containers-common) for a container without capabilities."""
    profile = json.loads(SECCOMP.read_text())
    rules = []
    for rule in profile["syscalls"]:
        only, never = rule.get("includes") or {}, rule.get("excludes") or {}
        if only.get("caps") or (only.get("arches") and architecture not in only["arches"]):
            continue
        if architecture in never.get("arches", ()):
            continue
        kept = {"names": rule["names"], "action": rule["action"], "args": rule.get("args") or []}
        if rule.get("errnoRet") is not None:
            kept["errnoRet"] = rule["errnoRet"]
        rules.append(kept)
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": rules,
    }
