"""A program: opens new connections to a port at a steady pace, and counts what becomes of each.

    load_client.py HOST PORT LANES CONNECTIONS_PER_SECOND

Each lane makes one HTTP request a connection, one after the other. Every 50 ms it prints a line of JSON:
`answered` by the text of the answer, `page` for answers of status 503, `page_last` (when the newest came),
`lost` by reason, `slowest` and `seconds` (since the first), and `changes` since the line before: [time,
text] whenever another text is answered than last. Until somebody listens on the port nothing counts. It
ends when its standard input does. Standard library only, and a process of its own: what it does disturbs
nobody's event loop, and nobody's its own.
"""

import collections
import json
import socket
import sys
import threading
import time

TIMEOUT = 15.0  # seconds for one request
TELL = 0.05  # seconds between two lines
REQUEST = b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n"


class Counts:
    """What became of the requests so far; all lanes write here."""

    def __init__(self) -> None:
        self.answered: collections.Counter[str] = collections.Counter()
        self.lost: collections.Counter[str] = collections.Counter()
        self.page = 0
        self.page_last = 0.0
        self.slowest = 0.0
        self.changes: list[tuple[float, str]] = []
        self._began = time.monotonic()
        self._last = ""
        self._lock = threading.Lock()

    def count(self, status: str, text: str, seconds: float) -> None:
        """One request is over; `status` is "" when there was no answer, and `text` the reason."""
        with self._lock:
            if status == "503":
                self.page += 1
                self.page_last = time.time()
            elif status == "200":
                self.answered[text] += 1
                self.slowest = max(self.slowest, seconds)
                if text != self._last:
                    self._last = text
                    self.changes.append((time.time(), text))
            else:
                self.lost[f"status {status}" if status else text] += 1

    def tell(self) -> None:
        """Print a line."""
        with self._lock:
            line = {
                "answered": self.answered,
                "page": self.page,
                "page_last": self.page_last,
                "lost": self.lost,
                "slowest": self.slowest,
                "seconds": time.monotonic() - self._began,
                "changes": self.changes,
            }
            print(json.dumps(line), flush=True)
            self.changes = []


def ask(host: str, port: int) -> tuple[str, str]:
    """One request on a connection of its own: status and text, or "" and what went wrong."""
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT) as connection:
            connection.sendall(REQUEST)
            answer = b""
            while data := connection.recv(65536):
                answer += data
    except OSError as error:
        return "", type(error).__name__
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return "", "cut off" if answer else "closed without an answer"
    return head.split(b" ", 2)[1].decode(), body.decode().strip()


def lane(host: str, port: int, pause: float, counts: Counts, ended: threading.Event) -> None:
    """Ask every `pause` seconds; what a slow answer delayed is made up for."""
    due = time.monotonic()
    while not ended.wait(max(0.0, due - time.monotonic())):
        began = time.monotonic()
        status, text = ask(host, port)
        counts.count(status, text, time.monotonic() - began)
        due = max(due + pause, began - 1.0)


def wait_for_listener(host: str, port: int, ended: threading.Event) -> None:
    """Return when somebody listens, or when it is over."""
    while not ended.wait(0.002):
        try:
            socket.create_connection((host, port), timeout=TIMEOUT).close()
        except OSError:
            continue
        return


def watch_for_end(ended: threading.Event) -> None:
    """Say when standard input ends: whoever started us is gone, or has seen enough."""
    sys.stdin.read()
    ended.set()


def main() -> None:
    """Run until standard input ends."""
    host, port, lanes, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    ended = threading.Event()
    threading.Thread(target=watch_for_end, args=(ended,), daemon=True).start()
    wait_for_listener(host, port, ended)
    counts = Counts()
    arguments = (host, port, lanes / rate, counts, ended)
    threads = [threading.Thread(target=lane, args=arguments) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    while not ended.wait(TELL):
        counts.tell()
    for thread in threads:
        thread.join()
    counts.tell()


if __name__ == "__main__":
    main()
