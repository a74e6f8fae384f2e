"""How a tenant's mail leaves: what the plan says of it, over what the platform's settings say."""

from __future__ import annotations

from msgspec.structs import replace

from malote_operator import fleet
from malote_operator.api.plan import Plan
from malote_operator.settings import Settings
from malote_relay import config as relay

HTTPS = 443


def delivery(tenant: str, plan: Plan, settings: Settings) -> relay.Delivery:
    """The relay's `delivery`, but for whether it is frozen."""
    ours, egress = fleet.base(settings.relay.config).delivery, plan.spec.egress
    smart, socks = egress.smart_host, egress.socks5
    return replace(
        ours,
        helo_name=(egress.helo_template or settings.egress.helo_template).replace("{tenant}", tenant),
        source_address=egress.source_address or settings.egress.source_address,
        smtp_port=settings.egress.smtp_port,
        allow_networks=settings.egress.allow_networks,
        smart_host=relay.SmartHost(
            host=smart.host,
            port=smart.port,
            tls=relay.SmartHostTls(smart.tls.value),
            username=smart.username,
            password_file=smart.password_file,
        )
        if smart is not None
        else ours.smart_host,
        socks5=relay.Socks5(
            host=socks.host, port=socks.port, username=socks.username, password_file=socks.password_file
        )
        if socks is not None
        else ours.socks5,
    )


def ports(chosen: relay.Delivery) -> tuple[int, ...]:
    """The TCP ports that a relay with this `delivery` connects to, but for the DNS's: each once, the mail's first."""
    wanted = [chosen.smtp_port]
    wanted += [server.port for server in (chosen.smart_host, chosen.socks5) if server is not None]
    if chosen.tls.mta_sts:
        wanted.append(chosen.tls.policy_port)
    if chosen.tls_reports.enabled:
        wanted.append(HTTPS)  # a domain may want its reports at a URL
    return tuple(dict.fromkeys(wanted))
