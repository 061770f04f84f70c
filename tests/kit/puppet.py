#!/usr/bin/env python3
"""A web server on strings: what it does is decided by files in the directory $WORLD, at any time.

Standard library only, one thread. `V` is its version, read from the file VERSION beside it.

    late-V       it accepts nobody while this file is there
    sick, sick-V /healthz answers 500
    stubborn-V   it goes on serving after TERM while this file is there
    GET /exit    it ends at once with exit code 7, without an answer
    GET /pid     its process id
    lives        it appends a line "V pid" when it starts

So a test never has to guess how long something takes.
"""

import os
import select
import signal
import socket
import sys
import time

TICK = 0.02  # seconds between two looks at the strings


def main() -> int:
    """Serve until TERM; returns the exit code."""
    world = os.environ["WORLD"]
    with open(os.path.join(os.path.dirname(os.path.realpath(__file__)), "VERSION")) as file:
        version = file.read().split()[0]

    def pulled(name: str) -> bool:
        return os.path.exists(os.path.join(world, name))

    with open(os.path.join(world, "lives"), "a") as lives:
        lives.write(f"{version} {os.getpid()}\n")
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    print(f"version {version} starts", flush=True)
    while pulled(f"late-{version}") and not ended:
        time.sleep(TICK)
    server = _listener()
    server.setblocking(False)
    while not ended or pulled(f"stubborn-{version}"):
        if not select.select([server], [], [], TICK)[0]:
            continue
        try:
            connection, _ = server.accept()
        except BlockingIOError:
            continue
        with connection:
            sick = pulled("sick") or pulled(f"sick-{version}")
            try:
                _answer(connection, version, sick)
            except OSError:
                continue
    print(f"version {version} ends", flush=True)
    return 0


def _listener() -> socket.socket:
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS"):
        return socket.socket(fileno=3)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("0.0.0.0", int(os.environ["PORT"])))
    sock.listen(1024)
    return sock


def _answer(connection: socket.socket, version: str, sick: bool) -> None:
    connection.settimeout(20)  # whoever asks may be kept waiting, too
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 16384:
        data = connection.recv(4096)
        if not data:
            return
        head += data
    path = head.split(b" ", 2)[1].decode() if head.count(b" ") >= 2 else "/"
    status, body = "200 OK", f"{version}\n"
    if path == "/exit":
        print("fatal: told to exit", file=sys.stderr, flush=True)
        os._exit(7)
    if path == "/pid":
        body = f"{os.getpid()}\n"
    if path == "/healthz":
        status, body = ("500 Internal Server Error", "sick\n") if sick else ("200 OK", "fine\n")
        if sick:
            print("error: the database is away", file=sys.stderr, flush=True)
    reply = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    connection.sendall(reply.encode())


if __name__ == "__main__":
    sys.exit(main())
