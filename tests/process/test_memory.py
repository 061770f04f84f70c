"""Whether a second child fits: on this machine's real cgroups, and on trees laid out as kernels lay them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.process.memory import available, shortage, used_by_group

HOG = "import sys; data = bytearray(64 << 20); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
def hog() -> Iterator[subprocess.Popen[bytes]]:
    """A process group leader with 64 MiB of its own."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", HOG],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_the_memory_of_a_process_group_is_what_it_has_for_itself(hog: subprocess.Popen[bytes]) -> None:
    assert 64 << 20 <= used_by_group(hog.pid) < 96 << 20


def test_a_group_that_is_gone_uses_nothing() -> None:
    process = subprocess.Popen(["true"], start_new_session=True)
    process.wait()
    assert used_by_group(process.pid) == 0


def layout(root: Path, *, own: str, files: dict[str, str], available_kib: int = 8 << 20) -> tuple[Path, Path]:
    proc, cgroups = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemAvailable: {available_kib} kB\n")
    (proc / "self/cgroup").write_text(own)
    for name, text in files.items():
        path = cgroups / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return proc, cgroups


def test_without_any_limit_the_machine_decides(tmp_path: Path) -> None:
    proc, cgroups = layout(
        tmp_path, own="0::/x\n", files={"x/memory.max": "max\n", "x/memory.current": "5\n"}
    )
    assert available(proc, cgroups) == 8 << 30


def test_the_tightest_cgroup_above_decides_and_cache_it_can_drop_counts_as_free(tmp_path: Path) -> None:
    proc, cgroups = layout(
        tmp_path,
        own="0::/pod/box\n",
        files={
            "pod/memory.max": f"{512 << 20}\n",
            "pod/memory.current": f"{400 << 20}\n",
            "pod/memory.stat": f"anon 1\ninactive_file {100 << 20}\n",
            "pod/box/memory.max": "max\n",
            "pod/box/memory.current": f"{300 << 20}\n",
        },
    )
    assert available(proc, cgroups) == 212 << 20


def test_inside_a_container_the_root_is_its_own_cgroup(tmp_path: Path) -> None:
    proc, cgroups = layout(
        tmp_path,
        own="0::/../../elsewhere\n",
        files={"memory.max": f"{64 << 20}\n", "memory.current": f"{60 << 20}\n"},
    )
    assert available(proc, cgroups) == 4 << 20


def test_a_version_1_controller_beside_an_empty_unified_tree_is_read(tmp_path: Path) -> None:
    proc, cgroups = layout(
        tmp_path,
        own="4:memory:/box\n0::/\n",
        files={
            "memory/box/memory.limit_in_bytes": f"{256 << 20}\n",
            "memory/box/memory.usage_in_bytes": f"{200 << 20}\n",
            "memory/memory.limit_in_bytes": "9223372036854771712\n",
            "memory/memory.usage_in_bytes": "1\n",
        },
    )
    assert available(proc, cgroups) == 56 << 20


def test_a_child_too_large_for_what_is_left_is_told_with_both_numbers(
    tmp_path: Path, hog: subprocess.Popen[bytes]
) -> None:
    proc, cgroups = layout(
        tmp_path, own="0::/\n", files={"memory.max": f"{100 << 20}\n", "memory.current": f"{70 << 20}\n"}
    )
    for name in ("stat", "status"):
        (proc / str(hog.pid)).mkdir(exist_ok=True)
        (proc / str(hog.pid) / name).write_bytes(Path(f"/proc/{hog.pid}/{name}").read_bytes())
    said = shortage(hog.pid, proc, cgroups)
    assert "30 MiB are left" in said
    assert "uses" in said


def test_this_machine_can_be_asked(hog: subprocess.Popen[bytes]) -> None:
    assert available() > 0
    assert isinstance(shortage(os.getpid()), str)
