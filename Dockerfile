# An empty box: a base image, the agent as its entry point, and no application.
# BASE is what the applications run on, and has Python 3.11 or newer with venv for the agent.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md ./
COPY agent agent
COPY webhook webhook
# What only installs is not needed once all is installed.
RUN python3 -m venv /opt/emptybox \
 && /opt/emptybox/bin/pip install --quiet --no-cache-dir --constraint constraints.txt . \
 && /opt/emptybox/bin/pip uninstall --quiet --yes setuptools pip

FROM ${BASE}
COPY --from=build /opt/emptybox /opt/emptybox
# Written by hand because there is not a useradd in every base; the number is what counts.
RUN echo "emptybox:x:7070:7070:emptybox:/var/lib/emptybox:/sbin/nologin" >> /etc/passwd \
 && echo "emptybox:x:7070:" >> /etc/group \
 && install -d -o 7070 -g 7070 /var/lib/emptybox
ENV PATH=/opt/emptybox/bin:$PATH \
    EMPTYBOX_DATA=/var/lib/emptybox \
    EMPTYBOX_ADMIN=0.0.0.0:7070
USER 7070:7070
VOLUME /var/lib/emptybox
EXPOSE 7070
STOPSIGNAL SIGTERM
# Whether the agent's loop answers on its socket, asked by a program small enough to be started this often.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/opt/emptybox/bin/python3", "-I", "-S", "-c", "\
import os, socket, sys\n\
sock = socket.socket(socket.AF_UNIX)\n\
sock.settimeout(4)\n\
sock.connect(os.environ['EMPTYBOX_DATA'] + '/agent.sock')\n\
sock.sendall(b'GET /healthz HTTP/1.0\\r\\n\\r\\n')\n\
sys.exit(b' 200 ' not in sock.recv(64))"]
ENTRYPOINT ["emptybox", "run"]
