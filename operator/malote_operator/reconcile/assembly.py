"""Puts the operator's parts together: from settings and an API server to an engine that can lead."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from malote_operator.dns.lookup import Lookup
from malote_operator.kube.apply import Applier
from malote_operator.kube.client import Api
from malote_operator.kube.events import Events
from malote_operator.kube.kinds import PLAN, SENDING_DOMAIN, TENANT
from malote_operator.mail.postman import Postman
from malote_operator.settings import Settings

from .cache import Cache
from .certificates import Certificates
from .checks import Checks
from .context import Context
from .credentials import Credentials
from .dkimkeys import DkimKeys
from .engine import Engine
from .memory import Memories
from .noticekeys import NoticeKeys
from .plan import Plans
from .provision import Provision
from .queue import Queue
from .relaypods import RelayPods
from .returnpaths import ReturnPathSecrets
from .sendingdomain import SendingDomains
from .tenant import Tenants
from .unreadable import or_say_so


@dataclass(frozen=True)
class Operator:
    """A whole operator but for what starts it: `engine.lead` works, `context` takes in what watches see."""

    context: Context
    engine: Engine


def assemble(
    settings: Settings,
    api: Api,
    pods: RelayPods,
    *,
    identity: str,
    operator_namespace: str,
    postman: Postman | None = None,
) -> Operator:
    """Build the operator. Needs a running event loop."""
    cache = Cache()
    applier = Applier(api, cache.live_digest, home=settings.relay_namespace)
    context = Context(
        settings=settings,
        api=api,
        applier=applier,
        cache=cache,
        queue=Queue(asyncio.get_running_loop().time),
        events=Events(api, identity),
        checks=Checks(Lookup(settings.dns).observe),
        pods=pods,
    )
    memories = Memories(applier, settings)
    keys = DkimKeys(api, applier, settings)
    notice_keys = NoticeKeys(api, applier, settings)
    certificates = Certificates(api, applier, settings, context.events)
    domains = SendingDomains(context, keys, memories)
    tenants = Tenants(
        context,
        domains=domains,
        keys=keys,
        memories=memories,
        provision=Provision(
            context,
            keys=keys,
            memories=memories,
            credentials=Credentials(api, applier, memories, settings),
            certificates=certificates,
            return_paths=ReturnPathSecrets(api, applier, settings),
            notice_keys=notice_keys,
            operator_namespace=operator_namespace,
        ),
        postman=postman,
    )

    async def begin() -> None:
        """Another replica may have written since: believe nothing that was read before."""
        memories.clear()
        keys.clear()
        notice_keys.clear()
        certificates.clear()
        domains.clear()
        tenants.clear()
        await domains.sweep()

    async def sweep() -> None:
        """What no tenant's or domain's visit looks at."""
        await domains.sweep()
        await certificates.ensure(context.now())

    reconcilers = {
        PLAN.name: Plans(context).reconcile,
        SENDING_DOMAIN.name: domains.reconcile,
        TENANT.name: tenants.reconcile,
    }
    engine = Engine(
        context,
        {kind: or_say_so(context, reconcile) for kind, reconcile in reconcilers.items()},
        begin=begin,
        sweep=sweep,
    )
    return Operator(context, engine)
