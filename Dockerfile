# The server in a container. Targets: `slim`, the server alone; `full`, the last one, with Git, Node.js and the agents.
# Build, run, volumes, health: docs/images.md. No instruction needs BuildKit.

# Any Debian with Python 3.11.4 or newer and its venv module.
ARG BASE=python:3.13-slim


FROM ${BASE} AS build
# Where packages come from, if not from where pip gets them by itself.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
COPY . /source
RUN python3 -m venv /opt/sandbox-agent \
    && /opt/sandbox-agent/bin/python -m pip install --no-cache-dir --disable-pip-version-check /source \
    && /opt/sandbox-agent/bin/python -m pip uninstall --yes --quiet pip


FROM ${BASE} AS slim
# Only the command is on PATH: `python` is the system's, for agents and their users.
COPY --from=build /opt/sandbox-agent /opt/sandbox-agent
# Agents are outside of the home directory, so that a volume there does not hide them.
RUN ln -s /opt/sandbox-agent/bin/sandbox-agent /usr/local/bin/sandbox-agent \
    && useradd --uid 1000 --create-home --shell /bin/bash sandbox \
    && install --directory --owner sandbox --group sandbox /var/lib/sandbox-agent
USER 1000
WORKDIR /home/sandbox
# By the environment, so that the health check knows it as well.
ENV HOME=/home/sandbox \
    SANDBOX_AGENT_HOST=0.0.0.0 \
    SANDBOX_AGENT_PORT=2468 \
    SANDBOX_AGENT_DATA_DIR=/var/lib/sandbox-agent \
    SANDBOX_AGENT_STATE_DIR=/home/sandbox/.local/state/sandbox-agent
EXPOSE 2468
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s --retries=3 \
    CMD ["sandbox-agent", "daemon", "status", "--exit-code"]
ENTRYPOINT ["sandbox-agent"]
CMD ["server"]


FROM slim AS full
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG UV_DEFAULT_INDEX
ARG npm_config_registry
# `all`, or some of them: "claude codex".
ARG AGENTS=all
USER root
# uv brings a Python of its own to agents that need another one.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl git nodejs npm ripgrep \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install --no-cache-dir --disable-pip-version-check uv \
    && ln -s /opt/uv/bin/uv /usr/local/bin/uv
USER 1000
ENV UV_PYTHON_INSTALL_DIR=/var/lib/sandbox-agent/python
RUN if [ "$AGENTS" = all ]; then sandbox-agent install-agent --all; \
    else for agent in $AGENTS; do sandbox-agent install-agent "$agent" || exit; done; fi \
    && rm -rf /home/sandbox/.cache /home/sandbox/.npm
