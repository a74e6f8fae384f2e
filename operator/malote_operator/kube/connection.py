"""Where the API server is and how to be believed by it: a kubeconfig, or the pod's service account.

`kubernetes.aio.config` reads both. Its Configuration is the one source of credentials, for `client` and for kopf.
Tokens of service accounts expire after an hour and are renewed in their file long before that, so the file is
read again every minute.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, incluster_config, load_incluster_config, load_kube_config

USER_AGENT = "malote-operator"
_TOKEN_AGE = 60.0
_BEARER = "BearerToken"


class ConnectionSettingsError(ValueError):
    """No usable way to reach an API server was found; the message says what was looked at."""


@dataclass(frozen=True)
class Connection:
    """An API server's address and the credentials for it, and the namespace they belong to."""

    configuration: Configuration
    namespace: str = "default"

    @property
    def server(self) -> str:
        """The API server's address."""
        return str(self.configuration.host)

    def session(self) -> aiohttp.ClientSession:
        """A session for kopf, which authenticates every request. Its owner closes it. Needs a running loop.

        A refused token is shown as a failed connection, which kopf tries again until the token has been renewed.
        For a 401 it would close the session, with the watches of all other kinds in it.
        """

        async def authenticate(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            try:
                authorization = await self.configuration.get_api_key_with_prefix(_BEARER)
            except (ConfigException, OSError) as error:
                raise aiohttp.ClientConnectionError(f"the token cannot be read: {error}") from error
            if authorization:
                request.headers["Authorization"] = authorization
            response = await handler(request)
            if response.status == 401:
                response.close()
                raise aiohttp.ClientConnectionError("the API server refuses the token")
            return response

        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=ApiClient(self.configuration).rest_client.ssl_context),
            proxy=self.configuration.proxy,
            trust_env=True,
            middlewares=(authenticate,),
            headers={"User-Agent": USER_AGENT},
        )


async def find() -> Connection:
    """The connection that $KUBECONFIG names, else the pod's. Raises ConnectionSettingsError."""
    if path := os.environ.get("KUBECONFIG", ""):
        return await from_kubeconfig(Path(path))
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return in_cluster()
    raise ConnectionSettingsError(
        "no API server to talk to: $KUBECONFIG is not set and this is no pod ($KUBERNETES_SERVICE_HOST is not set)"
    )


def in_cluster() -> Connection:
    """The connection of a pod, from the files of its service account."""
    directory = Path(incluster_config.SERVICE_TOKEN_FILENAME).parent
    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]  # the library's
        ApiClient(configuration)  # reads the certificates
        return Connection(configuration, (directory / "namespace").read_text().strip())
    except (ConfigException, OSError) as error:
        raise ConnectionSettingsError(
            f"the service account's files in {directory} cannot be used: {error}; "
            "does the pod have automountServiceAccountToken: false?"
        ) from error


async def from_kubeconfig(path: Path) -> Connection:
    """The current context of a kubeconfig, whatever its way to log in."""
    configuration = Configuration()
    try:
        loader = await load_kube_config(  # type: ignore[no-untyped-call]  # the library's
            str(path), client_configuration=configuration, persist_config=False
        )
        ApiClient(configuration)  # reads the certificates
    except (ConfigException, OSError, yaml.YAMLError, LookupError, TypeError, ValueError) as error:
        raise ConnectionSettingsError(f"{path} is not a kubeconfig that can be used: {error}") from error
    if configuration.tls_server_name:
        raise ConnectionSettingsError(
            f"{path}: tls-server-name is not supported by the watches: use an address that the certificate names"
        )
    read_at = time.monotonic()

    async def renew(configuration: Configuration) -> None:
        nonlocal read_at
        if time.monotonic() - read_at > _TOKEN_AGE:
            read_at = time.monotonic()
            await loader.load_and_set(configuration)
            _strip(configuration)

    _strip(configuration)
    configuration.refresh_api_key_hook = renew  # type: ignore[assignment]  # declared as None in the library
    return Connection(configuration, loader.current_context["context"].get("namespace") or "default")


def _strip(configuration: Configuration) -> None:
    """Take away the line end of a token file: the library leaves it, and no header may hold one."""
    if token := configuration.api_key.get(_BEARER):
        configuration.api_key[_BEARER] = token.strip()
