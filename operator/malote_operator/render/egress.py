"""How a tenant's mail leaves: what the Tenant says of it, over what its Plan says, over the platform's settings."""

from __future__ import annotations

from msgspec.structs import replace

from malote_operator import fleet
from malote_operator.api.egress import SmartHost, Socks5
from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.settings import Settings
from malote_relay import config as relay


def delivery(tenant: Tenant, plan: Plan, settings: Settings) -> relay.Delivery:
    """The relay's `delivery`, but for whether it is frozen."""
    chosen = replace(
        fleet.base(settings.relay.config).delivery,
        helo_name=settings.egress.helo_template,
        source_address=settings.egress.source_address,
        smtp_port=settings.egress.smtp_port,
        allow_networks=settings.egress.allow_networks,
    )
    for said in (plan.spec.egress, tenant.spec.egress):
        chosen = replace(
            chosen,
            helo_name=said.helo_template or chosen.helo_name,
            source_address=said.source_address or chosen.source_address,
            smart_host=_smart_host(said.smart_host) or chosen.smart_host,
            socks5=_socks5(said.socks5) or chosen.socks5,
        )
    return replace(chosen, helo_name=chosen.helo_name.replace("{tenant}", tenant.metadata.name))


def ports(chosen: relay.Delivery) -> tuple[int, ...]:
    """The TCP ports that a relay with this `delivery` connects to, but for the DNS's: each once, the mail's first."""
    wanted = [chosen.smtp_port]
    wanted += [server.port for server in (chosen.smart_host, chosen.socks5) if server is not None]
    if chosen.tls.mta_sts:
        wanted.append(chosen.tls.policy_port)
    if chosen.tls_reports.enabled:
        wanted += chosen.tls_reports.ports  # a domain may want its reports at a URL
    return tuple(dict.fromkeys(wanted))


def _smart_host(said: SmartHost | None) -> relay.SmartHost | None:
    if said is None:
        return None
    return relay.SmartHost(
        host=said.host,
        port=said.port,
        tls=relay.SmartHostTls(said.tls.value),
        username=said.username,
        password_file=said.password_file,
    )


def _socks5(said: Socks5 | None) -> relay.Socks5 | None:
    if said is None:
        return None
    return relay.Socks5(host=said.host, port=said.port, username=said.username, password_file=said.password_file)
