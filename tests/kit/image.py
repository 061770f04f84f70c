"""The image, really built: a Debian base by debootstrap, the Dockerfile by buildah with chroot isolation.

No engine and no registry is asked. Where this machine's package clients need settings of their own (a
certificate, an index), the build gets them as read-only mounts: they are no part of the image.
"""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
# What an application's base has, and (for `tests.kit.machine`) what makes a machine boot.
PACKAGES = (
    "ca-certificates", "python3", "python3-venv",
    "dbus", "initramfs-tools", "kmod", "linux-image-cloud-amd64", "runc", "systemd-sysv",
)  # fmt: skip
TRIES = 5  # at what comes over the network
DEADLINE = 600.0  # seconds for the longest of the programs: packages come over the network
# Some come with Python packages, and are beside the interpreter; some are root's.
PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
CERTIFICATES = "/etc/ssl/certs"


def need(*programs: str) -> None:
    """Skip the test where one of them is missing, or the rights of root; but fail in CI."""
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    if os.geteuid() != 0:
        missing.append("the rights of root")
    if missing and os.environ.get("CI"):
        pytest.fail(f"CI must have {', '.join(missing)}")
    if missing:
        pytest.skip(f"{', '.join(missing)} missing")


def run(*command: str | Path, directory: Path | None = None) -> str:
    """Run a program; returns what it printed. Fails with all it said."""
    done = subprocess.run(
        [str(word) for word in command], cwd=directory, capture_output=True, text=True, timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": PATH},
    )  # fmt: skip
    if done.returncode != 0:
        told = (done.stdout + done.stderr)[-4000:]
        raise AssertionError(f"{command[0]} ended with {done.returncode}:\n{told}")
    return done.stdout


def mirror() -> str:
    """Where this machine gets its Debian packages from; "" for debootstrap's own choice."""
    asked = run("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)", "Created-By: Packages")
    sites = [
        site for site, _, suite in (line.partition(" ") for line in asked.splitlines()) if suite == SUITE
    ]
    return next((site for site in sites if site.startswith(("http:", "https:", "file:"))), "")


def debian(directory: Path, cache: Path) -> Path:
    """A minimal Debian in `directory`; what a failed try had loaded into `cache` is not loaded again."""
    cache.mkdir()
    options = ("--variant=minbase", f"--cache-dir={cache}", f"--include={','.join(PACKAGES)}")
    for remaining in reversed(range(TRIES)):
        try:
            run("debootstrap", *options, SUITE, directory, mirror())
            break
        except AssertionError:
            if remaining == 0:
                raise
            run("find", directory, "-xdev", "-mindepth", "1", "-delete")
    shutil.rmtree(directory / "var/cache/apt/archives")
    shutil.rmtree(cache)
    return directory


def pip_settings(home: Path) -> Path:
    """A home directory with this machine's settings of pip."""
    file = configparser.ConfigParser(interpolation=None)
    file["global"] = {}
    for line in run("pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        file["global"][name.rpartition(".")[2]] = value.strip("'").replace("\\n", "\n")
    path = home / ".config/pip/pip.conf"
    path.parent.mkdir(parents=True)
    with path.open("w") as out:
        file.write(out)
    return home


@dataclass(frozen=True)
class Image:
    """The built image as a file tree, and the configuration in it (OCI image spec, `config`)."""

    tree: Path
    config: dict[str, Any]
    added: int  # bytes that it has more than its base
    copy: Callable[[], Path]  # another tree of it, to write into; shares what is the same

    @property
    def healthcheck(self) -> list[str]:
        """The HEALTHCHECK's program."""
        kind, *command = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return [str(word) for word in command]


@contextmanager
def built(directory: Path) -> Iterator[Image]:
    """Build all of it below `directory`, and leave nothing there."""
    stored = ("--root", directory / "storage", "--runroot", directory / "run", "--storage-driver", "overlay")

    def buildah(*words: str | Path) -> str:
        return run("buildah", *stored, *words).strip()

    try:
        container = buildah("from", "scratch")
        base = size(debian(Path(buildah("mount", container)), directory / "packages"))
        buildah("commit", "--quiet", "--rm", container, "localhost/base")
        buildah(
            "build", "--isolation", "chroot", "--pull-never", "--format", "docker", "--quiet",
            "--build-arg", "BASE=localhost/base", "--tag", "localhost/emptybox",
            "--volume", f"{pip_settings(directory / 'home')}:/root:ro",
            "--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro", ROOT,
        )  # fmt: skip

        def copy() -> Path:
            return Path(buildah("mount", buildah("from", "--pull-never", "localhost/emptybox")))

        container = buildah("from", "--pull-never", "localhost/emptybox")
        tree = Path(buildah("mount", container))
        config = json.loads(buildah("inspect", container))["Docker"]["config"]
        yield Image(tree, config, size(tree) - base, copy)
    finally:
        buildah("umount", "--all")
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")
        for place in ("home", "packages", "storage", "run"):
            shutil.rmtree(directory / place, ignore_errors=True)


def size(tree: Path) -> int:
    """Bytes on disk."""
    return int(run("du", "--summarize", "--one-file-system", "--block-size=1", tree).split()[0])
