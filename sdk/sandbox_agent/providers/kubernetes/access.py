"""How we get at a cluster: its API server's address, and who we are, from a kubeconfig file or the pod we run in.

kr8s finds that out: files merged, contexts, certificates, plugins that log in, the service account of a pod. It does
so under asyncio and Trio. The rest of kr8s is left alone: its connections are never closed, its forwarded ports know
asyncio only, and it asks again where we are forbidden something.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx

from ...errors import MissingExtra, ProviderError

__all__ = ["Access", "Credentials"]

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds who it is."""

FOUND_WITHIN = 60.0
"""Seconds: a plugin that logs in asks somebody else."""

TELLING = (ValueError, KeyError, RuntimeError, OSError)
"""Errors that say what is wrong. A parser's would show a line of the file, and with it perhaps a secret."""


@dataclass(frozen=True, slots=True)
class Access:
    """A way to the API server.

    Attributes:
      server: its URL.
      namespace: that the kubeconfig's context, or our own pod, is in.
      token: of ours, where no certificate says who we are.
      tls: what to trust, and our certificate.
      proxy: on the way there.
      server_name: that the server's certificate is for, where it is not the URL's.
    """

    server: str
    namespace: str
    token: str | None = field(repr=False)
    tls: ssl.SSLContext = field(repr=False)
    proxy: str | None
    server_name: str | None


class Credentials:
    """What was found out once, until it does not hold any more.

    Args:
      kubeconfig: the file; None: as `KUBECONFIG` says, or `~/.kube/config`, or the pod we run in.
      context: of the file; None: its current one.
    """

    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._found: Access | None = None

    async def access(self, instead_of: Access | None = None) -> Access:
        """The way there.

        Args:
          instead_of: one that was refused; another one is found out, unless somebody has done that meanwhile.

        Raises:
          ProviderError: there is none.
        """
        if self._found is None or self._found is instead_of:
            with anyio.move_on_after(FOUND_WITHIN) as scope:
                self._found = await self._find()
            if scope.cancelled_caught:
                raise ProviderError(f"no way to a Kubernetes cluster was found within {FOUND_WITHIN:g} s")
        assert self._found is not None, "found, or raised"
        return self._found

    async def _find(self) -> Access:
        try:
            auth = await anyio.to_thread.run_sync(self._auth)  # the import takes a while
            await auth.reauthenticate()
            try:
                tls = _trust(str(auth.server), await auth.ssl_context())
            finally:
                # Keys that the kubeconfig has in it are written to files, for OpenSSL to read them.
                for file in _own_files(auth):
                    await anyio.Path(file).unlink(missing_ok=True)
            return Access(
                server=str(auth.server).rstrip("/"),
                namespace=await _namespace(auth),
                token=None if auth.token is None else str(auth.token).strip(),
                tls=tls,
                proxy=auth.proxy,
                server_name=auth.tls_server_name,
            )
        except ProviderError:
            raise
        except Exception as error:
            said = f"{type(error).__name__}: {error}" if isinstance(error, TELLING) else type(error).__name__
            raise ProviderError(f"no way to a Kubernetes cluster: {said}") from None

    def _auth(self) -> Any:
        try:
            # A private name: the public one asks the server for its version first, on a connection that it keeps.
            from kr8s._auth import KubeAuth
        except ImportError:
            raise MissingExtra('for Kubernetes: pip install "trio-sandbox-agent[kubernetes]"') from None
        return KubeAuth(kubeconfig=self._kubeconfig, context=self._context)


def _trust(server: str, found: ssl.SSLContext | bool) -> ssl.SSLContext:
    if isinstance(found, ssl.SSLContext):
        return found
    # What the machine trusts takes a tenth of a second to load: once for all, and not where there is no TLS.
    return httpx.create_ssl_context() if server.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _own_files(auth: Any) -> list[str]:
    """The files that kr8s has written for this one use."""
    context = _context(auth)
    if not context.get("cluster"):
        return []
    user, cluster = auth.kubeconfig.get_user(context["user"]), auth.kubeconfig.get_cluster(context["cluster"])
    made = (
        (user, "client-key-data", auth.client_key_file),
        (user, "client-certificate-data", auth.client_cert_file),
        (cluster, "certificate-authority-data", auth.server_ca_file),
    )
    return [str(file) for place, name, file in made if name in place and file is not None]


async def _namespace(auth: Any) -> str:
    if named := _context(auth).get("namespace"):
        return str(named)
    if not auth.active_context:
        with suppress(OSError):
            return (await anyio.Path(ACCOUNT / "namespace").read_text()).strip()
    return "default"


def _context(auth: Any) -> dict[str, Any]:
    """Of the kubeconfig; empty without one."""
    return dict(auth.kubeconfig.get_context(auth.active_context)) if auth.active_context else {}
