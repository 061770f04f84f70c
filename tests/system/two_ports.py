#!/usr/bin/env python3
"""A server on several sockets handed over (sd_listen_fds(3)): answers with the port's name and VERSION."""

import os
import selectors
import signal
import socket
import sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
names = os.environ["LISTEN_FDNAMES"].split(":")
selector = selectors.DefaultSelector()
for number, name in enumerate(names):
    listener = socket.socket(fileno=3 + number)
    listener.setblocking(False)
    selector.register(listener, selectors.EVENT_READ, (listener, name))
while True:
    for key, _ in selector.select():
        listener, name = key.data
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            continue
        with connection:
            connection.recv(4096)
            body = f"{name} VERSION\n"
            connection.sendall(
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
            )
