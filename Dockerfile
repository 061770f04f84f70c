# An empty box: a base image, the agent as its entry point, and no application.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
COPY . /src
RUN python3 -m venv /opt/emptybox \
 && /opt/emptybox/bin/pip install --quiet --no-cache-dir -c /src/constraints.txt /src \
 && /opt/emptybox/bin/python -m compileall -q /opt/emptybox \
 && rm -rf /opt/emptybox/lib/python3*/site-packages/pip /opt/emptybox/lib/python3*/site-packages/setuptools

FROM ${BASE}
COPY --from=build /opt/emptybox /opt/emptybox
RUN useradd --system --uid 7070 --home-dir /var/lib/emptybox --create-home emptybox
ENV PATH=/opt/emptybox/bin:$PATH \
    EMPTYBOX_DATA=/var/lib/emptybox \
    EMPTYBOX_ADMIN=0.0.0.0:7070 \
    PYTHONUNBUFFERED=1
USER 7070
VOLUME /var/lib/emptybox
EXPOSE 7070
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["emptybox", "status", "--json"]
ENTRYPOINT ["emptybox", "run"]
