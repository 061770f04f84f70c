"""A server of a protocol of its own: answers each line with its version; over TLS when it has a certificate.

    plain_server.py VERSION [CERTIFICATE]        accepts nobody while the file late-VERSION is in $WORLD

It ends on TERM, between two clients.
"""

import os
import select
import signal
import socket
import ssl
import sys
import time

version, tls = sys.argv[1], None
if len(sys.argv) > 2:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(sys.argv[2])
ended: list[int] = []
signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
while os.path.exists(os.path.join(os.environ["WORLD"], f"late-{version}")) and not ended:
    time.sleep(0.02)
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
listener.setblocking(False)
while not ended:
    if not select.select([listener], [], [], 0.02)[0]:
        continue
    try:
        client, _ = listener.accept()
        client.settimeout(5)
        with tls.wrap_socket(client, server_side=True) if tls else client as connection:
            if line := connection.recv(100):
                connection.sendall(f"{version} {line.decode()}".encode())
    except OSError:  # a probe that only connects, or another process was faster
        continue
