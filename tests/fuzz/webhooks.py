"""Hostile deliveries for a bounded time: no accident, no unbounded memory.

    python -m tests.fuzz.webhooks [SECONDS]

One half of the time Hypothesis sends headers and bodies to a real receiver (the tests of
`tests/webhook/test_hostile_input.py` with ever new examples), the other half atheris, where there is one for
this Python, looks for bodies and headers that take new paths through the readers of all senders. Ends with 0
when neither found anything.
"""

from __future__ import annotations

import importlib.util
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 60.0
MEMORY = 1024  # MiB that the process may come to
LENGTH = 256 * 1024  # bytes of a body at most
REPOSITORY = Path(__file__).parents[2]
HOSTILE = "tests/webhook/test_hostile_input.py"


def main() -> int:
    """Both halves, one after the other; the exit code."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    code = hypothesis_for(seconds / 2)
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: there is no atheris for this Python; Hypothesis alone")
        return code or hypothesis_for(seconds / 2)
    return code or atheris_for(seconds / 2)


def hypothesis_for(seconds: float) -> int:
    """Run the tests with new seeds until the time is over; 0 when none failed."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end or rounds == 0:
        seed = random.randrange(2**32)
        words = ["-m", "pytest", "-q", "-p", "no:xdist", "-W", "ignore", f"--hypothesis-seed={seed}", HOSTILE]
        done = subprocess.run([sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True)
        if done.returncode != 0:
            print(done.stdout[-8000:], f"fuzz: with --hypothesis-seed={seed}", sep="\n")
            return 1
        rounds += 1
    print(f"fuzz: Hypothesis, {rounds} rounds: nothing found")
    return 0


def atheris_for(seconds: float) -> int:
    """Run atheris in a process of its own (libFuzzer ends it); 0 when it found nothing."""
    with tempfile.TemporaryDirectory() as name:
        corpus = Path(name) / "corpus"
        corpus.mkdir()
        for fixture in (REPOSITORY / "tests" / "webhook" / "fixtures").iterdir():
            for choice in range(16):
                (corpus / f"{fixture.stem}-{choice}").write_bytes(bytes([choice, 0]) + fixture.read_bytes())
        limits = [f"-max_total_time={int(seconds) or 1}", f"-rss_limit_mb={MEMORY}", f"-max_len={LENGTH}"]
        words = ["-m", "tests.fuzz.webhooks_atheris", *limits, "-timeout=10", f"-artifact_prefix={name}/"]
        done = subprocess.run(
            [sys.executable, *words, str(corpus)],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
        )
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
        if done.returncode != 0:
            print(done.stdout[-4000:], done.stderr[-8000:], sep="\n")
            for found in Path(name).glob("*-*"):
                if found.is_file():
                    print(f"fuzz: the input, in hex: {found.read_bytes()[:2000].hex()}")
            return 1
        runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
        print(f"fuzz: atheris, {''.join(runs) or 'done'}: nothing found, {peak} MiB at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
