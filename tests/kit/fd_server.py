"""A small server on an inherited listening socket, as a child of the tests. Needs only the standard library.

`python fd_server.py NAME [FD]` (FD: 3). Answers each request with one line: `NAME PEER`, and closes.
TERM: stop accepting at once, finish what was accepted, exit 0. It reads the socket's flags as they are:
on a blocking listener it relies on accept to block.
"""

import os
import select
import signal
import socket
import sys

DEADLINE = 5.0


def answer(connection: socket.socket, name: str) -> None:
    connection.settimeout(DEADLINE)
    with connection:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(4096)
            if not data:
                return
            head += data
        body = f"{name} {connection.getpeername()[0]}\n".encode()
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )


def main() -> None:
    name = sys.argv[1]
    listener = socket.socket(fileno=int(sys.argv[2]) if len(sys.argv) > 2 else 3)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    signal.signal(signal.SIGTERM, lambda *_: None)
    print("ready", flush=True)
    while True:
        watched: list[socket.socket | int] = [listener, read]
        ready, _, _ = select.select(watched, [], [])
        if read in ready:
            return
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        try:
            answer(connection, name)
        except OSError:
            pass


main()
