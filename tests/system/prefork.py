"""A server with workers: answers on each socket with the socket's name and VERSION, until TERM.

    prefork.py VERSION einhorn                      takes its sockets by einhorn's variables
    prefork.py VERSION bind ADDRESS NAME ...        binds $PORT_NAME at each address

Two workers accept from all sockets; each finishes what it has accepted.
"""

import os
import select
import signal
import socket
import sys

WORKERS = 2


def handed() -> list[tuple[str, socket.socket]]:
    """EINHORN_FD_0 ... in the order of LISTEN_FDNAMES."""
    names = os.environ["LISTEN_FDNAMES"].split(":")
    assert os.environ["EINHORN_FD_COUNT"] == os.environ["LISTEN_FDS"] == str(len(names))
    assert os.environ["LISTEN_PID"] == str(os.getpid())
    numbers = [int(os.environ[f"EINHORN_FD_{n}"]) for n in range(len(names))]
    return [(name, socket.socket(fileno=number)) for name, number in zip(names, numbers, strict=True)]


def bound(places: list[str]) -> list[tuple[str, socket.socket]]:
    """One for each address and name; `::` without IPv4, as many programs do it."""
    assert "LISTEN_FDS" not in os.environ and "EINHORN_FD_COUNT" not in os.environ
    made = []
    for address, name in zip(places[::2], places[1::2], strict=True):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        number = int(os.environ[f"PORT_{name.upper()}"])
        made.append((name, socket.create_server((address, number), family=family)))
    return made


def work(sockets: list[tuple[str, socket.socket]], version: str) -> None:
    """Answer until TERM."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    for _, sock in sockets:
        sock.setblocking(False)
    while not ended:
        ready = select.select([sock for _, sock in sockets], [], [], 0.02)[0]
        for name, sock in sockets:
            if sock in ready:
                answer(sock, f"{name}-{version} {os.getpid()}\n")


def answer(listener: socket.socket, body: str) -> None:
    """One client, if there is still one."""
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return
    with connection:
        try:
            connection.settimeout(5)
            if connection.recv(4096):
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall((head + body).encode())
        except OSError:
            return


def main() -> None:
    """Fork the workers and wait for them; TERM goes to the whole group."""
    version, way, *places = sys.argv[1:]
    sockets = handed() if way == "einhorn" else bound(places)
    signal.signal(signal.SIGTERM, lambda *_: None)
    for _ in range(WORKERS):
        if os.fork() == 0:
            work(sockets, version)
            os._exit(0)
    for _ in range(WORKERS):
        os.wait()


if __name__ == "__main__":
    main()
