"""What the keeper waits for, all at once: descriptors, signals, and time."""

from __future__ import annotations

import selectors
import signal
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class Reactor:
    """Calls what is to be called when something stirs. `defect` hears of calls that fail."""

    def __init__(self, defect: Callable[[Exception], object]) -> None:
        self._defect = defect
        self._signals: list[int] = []
        self._heard: Callable[[int], object] = lambda _: None
        self._timers: dict[str, tuple[float, Callable[[], object]]] = {}
        self._selector = selectors.DefaultSelector()
        self._wakeup, self._wake = socket.socketpair()

    def turn(self) -> None:
        """Wait until something stirs, and call whoever it concerns."""
        due = min((when for when, _ in self._timers.values()), default=None)
        for key, _ in self._selector.select(None if due is None else max(0.0, due - time.monotonic())):
            if self._selector.get_map().get(key.fd) is key:  # not closed by one before it
                self._survive(key.data)
        while self._signals:
            self._survive(self._heard, self._signals.pop(0))
        for name, timer in list(self._timers.items()):
            if timer[0] <= time.monotonic() and self._timers.get(name) is timer:
                del self._timers[name]
                self._survive(timer[1])

    def _survive(self, call: Callable[..., object], *arguments: object) -> None:
        """A defect here must not end what is kept: say so and go on."""
        try:
            call(*arguments)
        except Exception as error:
            self._defect(error)

    def watch(self, fd: int, events: int = READ, call: Callable[[], object] | None = None) -> None:
        """Call when something happens to a descriptor; with no events: no more. -1 (closed) is no error."""
        key = self._selector.get_map().get(fd) if fd >= 0 else None
        if key is None and events:
            self._selector.register(fd, events, call)
        elif key is not None and not events:
            self._selector.unregister(fd)
        elif key is not None and key.events != events:
            self._selector.modify(fd, events, call)

    def at(self, name: str, delay: float, call: Callable[[], object]) -> None:
        """Call in `delay` seconds, unless forgotten or replaced by then."""
        self._timers[name] = (time.monotonic() + delay, call)

    def waits(self, name: str) -> bool:
        """Whether a timer of that name runs."""
        return name in self._timers

    def forget(self, *names: str) -> None:
        """Stop these timers, or all."""
        for name in names or list(self._timers):
            self._timers.pop(name, None)

    def hear(self, numbers: Iterable[int], heard: Callable[[int], object]) -> None:
        """Call for each of these signals, but for those whoever started us wants ignored (nohup(1))."""
        self._heard = heard
        for number in numbers:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note_signal)
        self._wakeup.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        self.watch(self._wakeup.fileno(), call=lambda: self._wakeup.recv(4096))

    def _note_signal(self, number: int, _frame: object) -> None:
        self._signals.append(number)
