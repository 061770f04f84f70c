"""A machine that boots in seconds, emulated: Debian's kernel, this host's files read-only, one disk.

Its process 1 is a shell of busybox; the file system of this host is its root (virtiofs), with a disk of its
own at /mnt and memory at /run. What it is there for is one program; what that prints comes out of the
serial line.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.image import need, run

MEMORY = 640  # MiB
# In the order in which they need one another.
MODULES = (
    "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "drivers/block/virtio_blk",
    "fs/fuse/fuse", "fs/fuse/virtiofs",
)  # fmt: skip
VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mkdir -p /proc /host
$b mount -t proc proc /proc
for m in {modules}; do $b insmod /modules/$m.ko || echo "@wrong no module $m"; done
$b mount -t virtiofs -o ro host /host || echo "@wrong no root"
for each in proc sysfs:sys devtmpfs:dev tmpfs:run; do
  $b mount -t ${{each%%:*}} none /host/${{each##*:}}
done
$b mkdir -p /host/dev/shm && $b mount -t tmpfs none /host/dev/shm
$b ip link set lo up
$b mount -t ext4 -o errors=remount-ro /host/dev/vda /host/mnt || echo "@wrong the disk cannot be mounted"
export PATH={path} TMPDIR=/run HOME=/run PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 {variables}
$b chroot /host {program} || echo "@wrong the program ended with $?"
$b umount /host/mnt
$b poweroff -f
"""


@dataclass(frozen=True)
class SmallMachine:
    """What it boots from: a kernel, and what is in memory then."""

    kernel: Path
    initrd: Path

    @asynccontextmanager
    async def booted(self, disk: Path, directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
        """The machine, its serial line being its standard output; `disk` is the socket of its disk.

        What still runs in the end is killed.
        """
        shared = directory / "host.sock"
        shared.unlink(missing_ok=True)
        host = await asyncio.create_subprocess_exec(
            *(_virtiofsd(), f"--socket-path={shared}", "-o", "source=/", "-o", "cache=always"),
            *("-o", "sandbox=chroot"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(20):
                while not shared.exists():
                    await asyncio.sleep(0.01)
            machine = await asyncio.create_subprocess_exec(
                *self._command(disk, shared),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            try:
                yield machine
            finally:
                await _end(machine)
        finally:
            await _end(host)

    def _command(self, disk: Path, shared: Path) -> list[str]:
        return [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "qemu64", "-smp", "1",
            "-m", str(MEMORY), "-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio",
            "-object", f"memory-backend-memfd,id=memory,size={MEMORY}M,share=on",
            "-numa", "node,memdev=memory", "-chardev", f"socket,id=host,path={shared}",
            "-device", "vhost-user-fs-pci,chardev=host,tag=host", "-device", "virtio-rng-pci",
            "-drive", f"file=nbd+unix:///?socket={disk},if=virtio,format=raw,cache=writeback",
            "-kernel", str(self.kernel), "-initrd", str(self.initrd),
            "-append", "console=ttyS0 quiet panic=-1",
        ]  # fmt: skip


def prepare(directory: Path, program: str, variables: str = "") -> SmallMachine:
    """Fetch a kernel of Debian, and put together what boots `program`, a line for a shell.

    `variables` are as for export(1).
    """
    need("qemu-system-x86_64", "mkfs.ext4", "busybox", "dpkg-deb")
    _virtiofsd()
    directory.mkdir()
    packages = directory / "packages"
    packages.mkdir(mode=0o755)
    asked = run("apt-cache", "depends", "--important", "linux-image-cloud-amd64")
    run("apt-get", "-q", "download", asked.split()[-1], directory=packages)
    (package,) = packages.iterdir()
    run("dpkg-deb", "-x", package, directory / "files")
    (kernel,) = (directory / "files/boot").glob("vmlinuz-*")
    (modules,) = (directory / "files/lib/modules").iterdir()
    root = directory / "root"
    (root / "modules").mkdir(parents=True)
    (root / "bin").mkdir()
    shutil.copy(shutil.which("busybox") or "", root / "bin/busybox")
    for module in MODULES:
        shutil.copy(modules / f"kernel/{module}.ko", root / "modules")
    names = " ".join(module.rpartition("/")[2] for module in MODULES)
    words = {"modules": names, "path": os.environ["PATH"], "program": program, "variables": variables}
    (root / "init").write_text(INIT.format(**words))
    (root / "init").chmod(0o755)
    listed = "\n".join(str(path.relative_to(root)) for path in root.rglob("*")).encode()
    pack = ["busybox", "cpio", "-o", "-H", "newc"]
    packed = subprocess.run(pack, cwd=root, input=listed, capture_output=True, check=True)
    (directory / "initrd").write_bytes(packed.stdout)
    return SmallMachine(kernel, directory / "initrd")


def _virtiofsd() -> str:
    return next(path for path in VIRTIOFSD if os.path.exists(path))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
