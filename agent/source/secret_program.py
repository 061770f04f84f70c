"""Programs of the operator's that print secrets. They run as the agent: a state only says which is asked."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time

SIZE_MAX = 64 << 10  # bytes of a secret


class ProgramFailed(Exception):
    """It gave no answer; the text says why, without what the program said."""


def ask(program: str | os.PathLike[str], seconds: float) -> bytes:
    """What the program prints, at most one byte more than a secret may have. Blocks at most `seconds`.

    Its process group ends with it. What it writes to stderr is dropped: nobody can tell what of it is
    secret. Raises ProgramFailed.
    """
    try:
        process = subprocess.Popen(
            [program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailed(f"cannot be run: {error.strerror}") from None
    try:
        data, code = _listen(process, time.monotonic() + seconds)
    finally:
        _end(process)
    if code is None:
        raise ProgramFailed(f"did not end within {seconds:.3g} s")
    if code != 0:
        raise ProgramFailed(f"ended with code {code}" if code > 0 else f"was ended by signal {-code}")
    return data


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, int | None]:
    """The output and the exit code: None after the deadline, 0 once more was written than is wanted."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    data = b""
    while (left := deadline - time.monotonic()) > 0:
        if not poll.poll(left * 1000):
            continue
        chunk = os.read(pipe, SIZE_MAX)
        data += chunk
        if len(data) > SIZE_MAX:
            return data[: SIZE_MAX + 1], 0
        if not chunk:
            try:
                return data, process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                break
    return b"", None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of its process group is left behind."""
    assert process.stdout is not None
    process.stdout.close()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
