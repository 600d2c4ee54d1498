"""The Docker engine, as much of it as we need: plain calls that block, and one kind of error.

Each call has a connection of its own: the official client is not made for several threads, and is one more thing to
close. On a local socket that costs two milliseconds.
"""

from __future__ import annotations

from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ...errors import MissingExtra, ProviderError, SandboxDestroyed
from .private_files import LARGEST, archive, content, group_of

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["LABEL", "Container", "Engine", "Status"]

LABEL = "sandbox-agent"
"""On every container of ours, with its name: containers of others are left alone."""

ANSWER_WITHIN = 60
"""Seconds of silence after which the engine is taken for dead."""

NOT_FOUND = 404
"""Of HTTP."""

TABLES = 4 << 20
"""Bytes of /etc/passwd and /etc/group with their archive."""

LAST_WORDS = 20
"""Lines of the log of a server that does not start."""

Status: TypeAlias = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


@dataclass(frozen=True, slots=True)
class Container:
    """How things are with one.

    Attributes:
      run: marks one run of it, from a start to the next.
      ports: `2468/tcp` and the like, and on which port of the engine's machine it is published.
      addresses: by the names of its networks.
    """

    status: Status
    run: str
    ports: Mapping[str, int]
    addresses: Mapping[str, str]


class Engine:
    """See the module. All methods raise `ProviderError`, and where the container is gone `SandboxDestroyed`.

    Args:
      host: its address, say `unix:///run/docker.sock`; None: what the environment says (`DOCKER_HOST` and so on).
    """

    def __init__(self, host: str | None) -> None:
        self._host = host

    def create(self, name: str, image: str, options: Mapping[str, object], files: Mapping[str, bytes]) -> None:
        """Make a container with these files in our directory, and start it.

        Args:
          options: as the client's `containers.create` takes them.
        """
        with self._client() as client:
            container: Any = client.containers.create(image, **options, name=name)

            def read(path: str) -> bytes | None:
                return _read(container, path, TABLES)

            user = str(container.attrs["Config"].get("User") or "")
            container.put_archive("/", archive(files, group_of(user, read)))
            container.start()

    def look(self, name: str) -> Container:
        with self._container(name) as container:
            state: Any = container.attrs["State"]
            if state["Status"] in ("removing", "dead"):
                raise SandboxDestroyed(f"the container {name} is being removed")
            network: Any = container.attrs["NetworkSettings"]
            ports: dict[str, list[dict[str, str]] | None] = network["Ports"] or {}
            networks: dict[str, dict[str, str]] = network["Networks"] or {}
            return Container(
                status=state["Status"],
                run=state["StartedAt"],
                ports={port: int(published[0]["HostPort"]) for port, published in ports.items() if published},
                addresses={key: place["IPAddress"] for key, place in networks.items() if place.get("IPAddress")},
            )

    def read(self, name: str, path: str) -> bytes | None:
        """What a small file of the container holds; None: there is no such file."""
        with self._container(name) as container:
            return _read(container, path)

    def start(self, name: str) -> None:
        """Idempotent."""
        with self._container(name) as container:
            container.start()

    def restart(self, name: str, run: str, patience: int) -> None:
        """Begin another run, unless this one is over: then somebody else has begun another.

        Args:
          patience: seconds that the server has to end.
        """
        with self._container(name) as container:
            if container.attrs["State"]["StartedAt"] == run:
                # Not by the engine's own restart, which fails where two ask for it at a time.
                container.stop(timeout=patience)
            container.start()

    def pause(self, name: str) -> None:
        """Freeze it; idempotent. One that does not run rests already."""
        with self._container(name) as container:
            if container.status == "running":
                container.pause()

    def unpause(self, name: str) -> None:
        """Idempotent."""
        with self._container(name) as container:
            if container.status == "paused":
                container.unpause()

    def stop(self, name: str, patience: int) -> None:
        """End its processes in good order, frozen ones included. Idempotent."""
        with self._container(name) as container:
            if container.status == "paused":
                container.unpause()
            container.stop(timeout=patience)

    def remove(self, name: str) -> None:
        """Kill it, and remove it with its anonymous volumes. One that is gone is no error."""
        with suppress(SandboxDestroyed), self._container(name) as container:
            container.remove(force=True, v=True)

    def last_words(self, name: str) -> str:
        """The end of its log."""
        with self._container(name) as container:
            log: bytes = container.logs(tail=LAST_WORDS)
            return log.decode(errors="replace").strip()

    @contextmanager
    def _container(self, name: str) -> Generator[Any]:
        with self._client() as client:
            container = client.containers.get(name)
            if container.labels.get(LABEL) is None:
                raise ProviderError(f"the container {name} is none of ours: it has no label {LABEL}")
            yield container

    @contextmanager
    def _client(self) -> Generator[Any]:
        try:
            docker = import_module("docker")
        except ImportError:
            raise MissingExtra('for Docker: pip install "trio-sandbox-agent[docker]"') from None
        broken = import_module("requests.exceptions").RequestException
        try:
            options: dict[str, Any] = {"timeout": ANSWER_WITHIN}
            if self._host is None:
                client = docker.from_env(**options)
            else:
                client = docker.DockerClient(base_url=self._host, **options)
            try:
                yield client
            finally:
                client.close()
        except docker.errors.APIError as error:
            said = str(error.explanation or error)
            # What else is not found may be an image or a network.
            gone = error.status_code == NOT_FOUND and "no such container" in said.lower()
            raise (SandboxDestroyed if gone else ProviderError)(f"the Docker engine says: {said}") from None
        except (docker.errors.DockerException, broken) as error:
            raise ProviderError(f"cannot reach the Docker engine: {error}") from None


def _read(container: Any, path: str, largest: int = LARGEST) -> bytes | None:
    try:
        chunks, _ = container.get_archive(path)
    except import_module("docker.errors").NotFound:
        return None
    with closing(chunks):
        return content(chunks, largest)
