"""A whole machine: a Debian root on a disk, its own kernel and systemd, under qemu without hardware's help.

The disk is packed from a file tree (mkfs.ext4 -d). What the machine is there for is one program, a Python
file: systemd starts it last, its output comes out of the serial line, and its end is the machine's end.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.kit.image import run

DEADLINE = 1500.0  # seconds: emulation is slow, and so may be the machine that emulates
MEMORY = 1024  # MiB
SPARE = 300  # MiB on the disk beside what is there
UNIT = """
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
Environment=PYTHONUNBUFFERED=1
ExecStart=/usr/bin/python3 /usr/src/guest.py
ExecStopPost=/bin/systemctl --no-block poweroff
[Install]
WantedBy=multi-user.target
"""


def boot(root: Path, program: Path, disk: Path) -> str:
    """Run `program` in a machine whose file tree is `root`; returns what came out of the serial line."""
    shutil.copy(program, root / "usr/src/guest.py")
    (root / "etc/systemd/system/guest.service").write_text(UNIT)
    wants = root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "guest.service").symlink_to("../guest.service")
    (root / "etc/systemd/system/serial-getty@ttyS0.service").symlink_to("/dev/null")  # it would hang up
    (root / "etc/machine-id").write_text("")
    used = int(run("du", "--summarize", "--one-file-system", "--block-size=1M", root).split()[0])
    run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", root, disk, f"{used * 5 // 4 + SPARE}M")
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    (initrd,) = (root / "boot").glob("initrd.img-*")
    machine = subprocess.run(
        [
            "qemu-system-x86_64", "-accel", "tcg", "-m", str(MEMORY), "-smp", "2", "-nodefaults",
            "-no-reboot", "-nographic", "-serial", "stdio", "-device", "virtio-rng-pci",
            "-drive", f"file={disk},if=virtio,format=raw,cache=unsafe", "-kernel", kernel, "-initrd", initrd,
            "-append", "root=/dev/vda rw console=ttyS0 quiet panic=-1 systemd.show_status=0",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=DEADLINE, check=False,
    )  # fmt: skip
    return machine.stdout.decode(errors="replace").replace("\r\n", "\n")
