"""What return paths are made with: a secret for each tenant, made once and never anew while anything holds it.

With another secret the relay would refuse the bounces of all mail that it has sent.
"""

from __future__ import annotations

import structlog

from malote_operator.api import names
from malote_operator.api.tenant import Tenant
from malote_operator.kube.apply import Applier, secret_data
from malote_operator.kube.client import Api, Object
from malote_operator.kube.errors import AlreadyExists
from malote_operator.kube.kinds import SECRET
from malote_operator.render import secrets
from malote_operator.settings import Settings

from . import material

log = structlog.get_logger(__name__)

LEAST_BYTES = 16
"""The relay takes no shorter secret."""


class ReturnPathSecrets:
    """Makes and reads them."""

    def __init__(self, api: Api, applier: Applier, settings: Settings) -> None:
        self._api = api
        self._applier = applier
        self._settings = settings

    async def of(self, tenant: Tenant) -> bytes:
        """The tenant's secret; b"" where somebody put one that cannot be used. Raises NameConflict.

        If its own Secret is lost, it is made again from the copy that the relay has.
        """
        name = names.return_paths(tenant.metadata.name)
        live = await self._find(tenant, name)
        if live is None:
            copy = _secret(await self._find(tenant, names.relay_keys(tenant.metadata.name)))
            body = secrets.return_paths(tenant, copy or material.new_password().encode(), self._settings)
            try:
                live = await self._api.create(SECRET, body)
            except AlreadyExists:
                live = await self._find(tenant, name)
            else:
                log.info("made the secret of return paths", tenant=tenant.metadata.name, anew=not copy)
        found = _secret(live)
        if not found:
            log.error("return paths cannot be made: delete this Secret, a new one will be made", secret=name)
        return found

    async def _find(self, tenant: Tenant, name: str) -> Object | None:
        return await self._applier.find(SECRET, name, self._settings.relay_namespace, tenant.metadata.uid)


def _secret(live: Object | None) -> bytes:
    found = secret_data(live).get(secrets.RETURN_PATHS_FILE, b"") if live is not None else b""
    return found if len(found) >= LEAST_BYTES else b""
