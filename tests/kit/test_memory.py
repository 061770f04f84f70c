from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from agent.kit.memory import give_back

# A thread needs 64 MiB in small parts and frees all of them but the last one, below which the C library
# gives nothing back by itself.
HOARD = """
import threading
from pathlib import Path
from agent.kit.memory import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

kept = []

def hoard():
    parts = [bytes(2000) for _ in range(1 << 15)]
    kept.append(parts.pop())

thread = threading.Thread(target=hoard)
thread.start()
thread.join()
before = resident()
give_back()
print(before, resident())
"""


def test_what_was_freed_is_given_back_to_the_system() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("the C library is not glibc")
    ran = subprocess.run([sys.executable, "-c", HOARD], check=True, capture_output=True, text=True)
    before, after = map(int, ran.stdout.split())
    assert before - after > 10_000, "pages"


def test_a_c_library_that_keeps_nothing_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    give_back()
