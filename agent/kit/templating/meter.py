"""What a template may cost, and the account of what it has cost so far."""

from __future__ import annotations

import time
from dataclasses import dataclass

WORK_PER_STEP = 256  # characters or items handled at the price of one more step
CLOCK_EVERY = 64  # steps between two looks at the clock


class TemplateFault(Exception):
    """A template that is wrong or too costly: `message` for people, `line` counts from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one rendering.

    `source` and `output` are characters; `made` is characters and items of all intermediate values
    together; `steps` counts evaluated nodes; `seconds` is processor time of the rendering thread, so
    that a busy machine changes no verdict.
    """

    source: int = 128 << 10
    output: int = 1 << 20
    made: int = 4 << 20
    steps: int = 200_000
    seconds: float = 2.0


class Meter:
    """The account of one rendering. Every method raises TemplateFault when a bound is passed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._steps = 0
        self._look = CLOCK_EVERY
        self._made = 0
        self._written = 0
        self._until = time.thread_time() + limits.seconds

    def step(self, work: int = 0) -> None:
        """One step, and `work` characters or items handled in it."""
        self._steps += 1 + work // WORK_PER_STEP
        if self._steps > self._limits.steps:
            raise TemplateFault(f"takes more than {self._limits.steps} steps")
        if self._steps >= self._look:
            self._look = self._steps + CLOCK_EVERY
            if time.thread_time() > self._until:
                raise TemplateFault(f"takes longer than {self._limits.seconds:g} s")

    def make(self, size: int) -> None:
        """A value of `size` characters or items is about to be made."""
        self._made += size
        if self._made > self._limits.made:
            raise TemplateFault(f"makes values of more than {self._limits.made} characters")
        self.step(size)

    def write(self, size: int) -> None:
        """`size` characters are about to be written."""
        self._written += size
        if self._written > self._limits.output:
            raise TemplateFault(f"writes more than {self._limits.output} characters")
