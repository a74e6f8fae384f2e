"""The welcome mail: everything a tenant needs to send, as text and HTML, in the language of its contact."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import parseaddr

import jinja2

from malote_operator.api import names
from malote_operator.api.plan import Plan
from malote_operator.api.tenant import AccountClass, Language, Tenant
from malote_operator.policy.model import TenantDecision
from malote_operator.settings import Settings, TlsMode

from .postman import Undeliverable
from .transport import Transport

_SUBJECTS = {Language.EN: "Your SMTP relay is ready", Language.PT_BR: "O seu relay SMTP está pronto"}

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("malote_operator.mail"),
    autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class AccountLines:
    """An account as the mail shows it."""

    name: str
    username: str
    password: str
    secret: str
    bulk: bool


class WelcomePostman:
    """Sends welcome mails by the platform's own mail host."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._settings = settings
        self._transport = transport

    async def welcome(
        self, tenant: Tenant, plan: Plan, decision: TenantDecision, passwords: Mapping[str, str], *, request: str
    ) -> None:
        """Send the welcome mail. Raises Undeliverable."""
        try:
            message = compose(tenant, plan, decision, passwords, self._settings, request=request)
        except ValueError as error:
            raise Undeliverable(f"the mail to {tenant.spec.contact.email} cannot be written: {error}") from error
        await self._transport.send(message)


def compose(
    tenant: Tenant,
    plan: Plan,
    decision: TenantDecision,
    passwords: Mapping[str, str],
    settings: Settings,
    *,
    request: str,
) -> EmailMessage:
    """The mail, but for its date. Raises ValueError for addresses that no header can hold."""
    language = tenant.spec.contact.language
    sender_name, sender = parseaddr(settings.notices.from_address)
    shown = " ".join((tenant.spec.contact.name or tenant.spec.display_name or tenant.metadata.name).split())
    subject = _SUBJECTS[language]
    values = {
        "subject": subject,
        "name": shown,
        "domains": [one.domain for one in decision.domains if one.sending],
        "host": names.endpoint_host(tenant.metadata.name, settings),
        "submission_port": settings.endpoint.submission_port,
        "submissions_port": settings.endpoint.submissions_port,
        "accounts": [
            AccountLines(
                name=account.name,
                username=names.username(tenant.metadata.name, account.name),
                password=passwords[account.name],
                secret=names.account_secret(tenant.metadata.name, account.name),
                bulk=account.account_class is AccountClass.BULK,
            )
            for account in decision.accounts
            if account.name in passwords
        ],
        "namespaces": decision.credential_namespaces,
        "own_authority": settings.tls.mode is TlsMode.OPERATOR and bool(decision.credential_namespaces),
        "plan": plan.spec.display_name or plan.metadata.name,
        "limit": plan.spec.messages_per_hour,
        "tolerance": plan.spec.tolerance_percent,
        "support": plan.spec.support.channels,
    }
    message = EmailMessage()
    message["From"] = Address(sender_name, addr_spec=sender)
    message["To"] = Address(shown, addr_spec=tenant.spec.contact.email)
    message["Subject"] = subject
    message["Message-ID"] = _message_id(tenant, request, sender)
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834 section 5: nobody's out-of-office answers it
    message.set_content(_rendered(f"welcome.{language.value}.txt.j2", values))
    message.add_alternative(_rendered(f"welcome.{language.value}.html.j2", values), subtype="html")
    message["Content-Language"] = language.value  # last: adding a body moves Content fields into it
    return message


def _message_id(tenant: Tenant, request: str, sender: str) -> str:
    """The same for the same mail sent twice, so that a mailbox can tell that it is one."""
    mark = hashlib.sha256(f"welcome\0{tenant.metadata.uid}\0{request}".encode()).hexdigest()[:32]
    return f"<{mark}@{sender.rpartition('@')[2]}>"


def _rendered(template: str, values: Mapping[str, object]) -> str:
    return _templates.get_template(template).render(values)
