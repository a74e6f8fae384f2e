# One image, two programs: malote-operator and malote-relay.
#
#     docker build -t malote:0.1.0 .
#
# BASE may be any image with Python 3.11 or newer and its venv module on PATH (the same Python is used in both stages).
ARG BASE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PIP_ROOT_USER_ACTION=ignore
# pip lives beside what it installs, so that the image's environment holds nothing to install more with.
RUN python3 -m venv /build/pip && python3 -m venv --without-pip /opt/malote
WORKDIR /build/source
# The dependencies change less often than the project: a layer of their own, each file checked against its hash.
COPY requirements/image.lock requirements/
RUN /build/pip/bin/pip --python /opt/malote/bin/python install --require-hashes -r requirements/image.lock
COPY pyproject.toml README.md ./
COPY operator operator
COPY relay relay
# The local world (dev/) is not part of the image, nor is its command.
RUN /build/pip/bin/pip --python /opt/malote/bin/python install --no-deps . && rm /opt/malote/bin/malote-dev
# Bytecode that is trusted without looking at time stamps: the same bytes in every build, no compiling at start.
RUN python3 -m compileall -q --invalidation-mode unchecked-hash /opt/malote/lib

FROM ${BASE}
LABEL org.opencontainers.image.title="Malote" \
      org.opencontainers.image.description="A dedicated SMTP relay for every tenant of a platform, declared in YAML"
# A name for the user: some libraries ask for it. It owns nothing here and cannot log in.
RUN echo 'malote:x:10001:' >> /etc/group && echo 'malote:x:10001:10001::/nonexistent:/usr/sbin/nologin' >> /etc/passwd
COPY --from=build /opt/malote /opt/malote
ENV PATH=/opt/malote/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
CMD ["malote-operator", "--help"]
