#!/usr/bin/env python3
"""A small web server that takes its listening socket over (sd_listen_fds(3)) and stops gracefully.

Standard library only, one process, one loop. It is what the demo, the tests and the benchmarks deploy,
so it reads how to misbehave from the file VERSION beside it: "version mode", the mode being

    good          serve
    never         answer /healthz with 500 from the start
    sickens       turn unhealthy one second after the start
    crashes       end with an error one second after the start
    exits         end with an error at once
    slow          take a second before it answers anything
"""

import os
import select
import signal
import socket
import sys
import time


def listener() -> socket.socket:
    """The socket that was handed over, or one of our own on $PORT."""
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS"):
        return socket.socket(fileno=3)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("0.0.0.0", int(os.environ["PORT"])))
    sock.listen(1024)
    return sock


def answer(connection: socket.socket, version: str, sick: bool) -> None:
    """Answer the one request of a connection."""
    connection.settimeout(2)
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 16384:
        data = connection.recv(4096)
        if not data:
            return
        head += data
    path = head.split(b" ", 2)[1].decode() if head.count(b" ") >= 2 else "/"
    status, body = "200 OK", f"{version}\n"
    if path == "/healthz":
        status, body = ("500 Internal Server Error", "no database\n") if sick else ("200 OK", "fine\n")
    elif path == "/environment":
        body = "".join(f"{name}={value}\n" for name, value in sorted(os.environ.items()))
    elif path.startswith("/file/"):
        with open(path.removeprefix("/file/")) as file:
            body = file.read()
    reply = f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\nConnection: close\r\n\r\n{body}"
    connection.sendall(reply.encode())


def main() -> int:
    """Serve until TERM; returns the exit code."""
    here = os.path.dirname(os.path.realpath(__file__))
    with open(os.path.join(here, "VERSION")) as file:
        version, mode = file.read().split()
    print(f"version {version} starts", flush=True)
    if mode == "exits":
        print("fatal: cannot read the licence file", file=sys.stderr, flush=True)
        return 3
    if mode == "slow":
        time.sleep(1)
    server = listener()
    server.setblocking(False)
    asleep, awake = socket.socketpair()
    awake.setblocking(False)
    signal.set_wakeup_fd(awake.fileno())
    ended = []
    signal.signal(signal.SIGTERM, lambda *_: ended.append(True))
    signal.signal(signal.SIGHUP, lambda *_: print("reloaded", flush=True))
    began, told = time.monotonic(), False
    while not ended:
        select.select([server, asleep], [], [], 0.2 if mode in ("sickens", "crashes") else None)
        old = time.monotonic() - began > 1
        if mode == "crashes" and old:
            print("fatal: out of cheese", file=sys.stderr, flush=True)
            return 7
        sick = mode == "never" or (mode == "sickens" and old)
        if sick and not told:
            told = True
            print("error: the database pool is exhausted", file=sys.stderr, flush=True)
        try:
            connection, _ = server.accept()
        except BlockingIOError:
            continue
        with connection:
            try:
                answer(connection, version, sick)
            except OSError:
                continue
    print(f"version {version} ends", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
