"""A tenant's Secrets: the relay's configuration and keys, its certificate, and the accounts' credentials."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

from malote_operator.api import names
from malote_operator.api.sendingdomain import SendingDomain
from malote_operator.api.tenant import Tenant
from malote_operator.policy.model import DkimPublicKey
from malote_operator.settings import Settings
from malote_relay.config import CERTIFICATE_FILE, CERTIFICATE_KEY_FILE, CONFIG_FILE

from .common import Manifest, manifest

DOMAIN_LABEL = "malote.dev/domain-hash"
"""Label of a DKIM key's Secret: which domain it is for (a domain may be longer than a label's value)."""
CREATED_ANNOTATION = "malote.dev/created"

RETURN_PATHS_FILE: Final = "return-paths.secret"
"""What return paths are made with: the key of Secret T-return-paths, and the file in the relay's `keys/`."""
NOTICES: Final = "notices"
"""Stands for the domain in the name of the file with the relay's own key: none has a single label."""

_PRIVATE, _PUBLIC, _SELECTOR, _DOMAIN = "private.pem", "public", "selector", "domain"


def relay(tenant: Tenant, config: bytes, settings: Settings) -> Manifest:
    """Secret T-relay: the configuration that the relay reloads when it changes."""
    return _opaque(tenant, names.relay(tenant.metadata.name), settings, {CONFIG_FILE.name: config})


def relay_keys(tenant: Tenant, keys: Mapping[str, bytes], settings: Settings) -> Manifest:
    """Secret T-relay-keys: the private DKIM keys in use and what return paths are made with, by file name."""
    return _opaque(tenant, names.relay_keys(tenant.metadata.name), settings, keys)


def return_paths(tenant: Tenant, secret: bytes, settings: Settings) -> Manifest:
    """Secret T-return-paths: made once by POST, immutable; with another one no bounce would be believed any more."""
    body = _opaque(tenant, names.return_paths(tenant.metadata.name), settings, {RETURN_PATHS_FILE: secret})
    body["immutable"] = True
    return body


def tls(tenant: Tenant, certificate: bytes, key: bytes, settings: Settings) -> Manifest:
    """Secret T-tls, where the operator itself issues the certificate."""
    body = manifest("v1", "Secret", tenant, names.tls(tenant.metadata.name), settings.relay_namespace)
    body["type"] = "kubernetes.io/tls"
    body["data"] = _encoded({CERTIFICATE_FILE.name: certificate, CERTIFICATE_KEY_FILE.name: key})
    return body


def account(
    tenant: Tenant, account_name: str, password: str, settings: Settings, namespace: str, ca: bytes = b""
) -> Manifest:
    """Secret T-smtp-ACCOUNT in `namespace`, in the Service Binding convention, so that an application can mount it.

    `ca`: the certificate to trust, where clients do not trust the relay's issuer already.
    """
    name = tenant.metadata.name
    host, port = names.endpoint_host(name, settings), settings.endpoint.submission_port
    username = names.username(name, account_name)
    body = manifest(
        "v1",
        "Secret",
        tenant,
        names.account_secret(name, account_name),
        namespace,
        component="credentials",
        extra_labels={"malote.dev/account": account_name},
    )
    body["type"] = "servicebinding.io/smtp"
    data = {
        "type": b"smtp",
        "provider": b"malote",
        "host": host.encode(),
        "port": str(port).encode(),
        "username": username.encode(),
        "password": password.encode(),
        "uri": f"smtp://{quote(username, safe='')}:{quote(password, safe='')}@{host}:{port}".encode(),
    }
    if ca:
        data["certificates"] = ca
    body["data"] = _encoded(data)
    return body


def password_of(secret: Mapping[str, Any]) -> str:
    """The password in a Secret made by `account`. Raises KeyError or ValueError when there is none."""
    return base64.b64decode(secret["data"]["password"], validate=True).decode("ascii")


def dkim_key(
    tenant: Tenant, domain: SendingDomain, key: DkimPublicKey, private_key: bytes, settings: Settings
) -> Manifest:
    """The Secret of one DKIM key: made once by POST, immutable, never replaced. `private_key`: PKCS #8, PEM."""
    name, of_domain = names.dkim_key(tenant.metadata.name, key.selector), domain.spec.domain
    labels, data = {DOMAIN_LABEL: domain_hash(of_domain)}, {_DOMAIN: of_domain.encode()}
    return _key(tenant, name, key, data | {_PRIVATE: private_key}, settings, labels)


def notices_dkim(tenant: Tenant, key: DkimPublicKey, private_key: bytes, settings: Settings) -> Manifest:
    """Secret T-notices-dkim, made like a domain's key; it names no domain, since the EHLO name may change."""
    return _key(tenant, names.notices_dkim(tenant.metadata.name), key, {_PRIVATE: private_key}, settings, {})


def domain_hash(domain: str) -> str:
    """The value of DOMAIN_LABEL for that domain."""
    return hashlib.sha256(domain.encode()).hexdigest()[:32]


def selector(public_key_der: bytes) -> str:
    """A key's selector: it derives from the key, so that no two keys ever share one."""
    return "m" + hashlib.sha256(public_key_der).hexdigest()[:12]


def read_dkim_key(secret: Mapping[str, Any]) -> tuple[str, DkimPublicKey, bytes]:
    """Domain, public part and private key (PEM) from a Secret made by `dkim_key`. Raises KeyError or ValueError."""
    key, data = _read_key(secret)
    return data[_DOMAIN].decode(), key, data[_PRIVATE]


def read_notices_dkim(secret: Mapping[str, Any]) -> tuple[DkimPublicKey, bytes]:
    """Public part and private key (PEM) from a Secret made by `notices_dkim`. Raises KeyError or ValueError."""
    key, data = _read_key(secret)
    return key, data[_PRIVATE]


def key_files(secrets: Iterable[Mapping[str, Any]]) -> dict[str, bytes]:
    """The content of T-relay-keys from the keys' own Secrets."""
    read = (read_dkim_key(secret) for secret in secrets)
    return {key.file_name(domain): private for domain, key, private in read}


def _key(
    tenant: Tenant,
    name: str,
    key: DkimPublicKey,
    data: Mapping[str, bytes],
    settings: Settings,
    labels: dict[str, str],
) -> Manifest:
    body = manifest(
        "v1",
        "Secret",
        tenant,
        name,
        settings.relay_namespace,
        component="dkim-key",
        extra_labels=labels,
        annotations={CREATED_ANNOTATION: key.created.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")},
    )
    body["type"] = "malote.dev/dkim-key"
    body["immutable"] = True
    public = {_PUBLIC: key.public_key.encode(), _SELECTOR: key.selector.encode()}
    body["data"] = _encoded({**data, **public})
    return body


def _read_key(secret: Mapping[str, Any]) -> tuple[DkimPublicKey, dict[str, bytes]]:
    data = {name: base64.b64decode(value, validate=True) for name, value in secret["data"].items()}
    metadata = secret["metadata"]
    created = metadata.get("annotations", {}).get(CREATED_ANNOTATION) or metadata["creationTimestamp"]
    key = DkimPublicKey(
        selector=data[_SELECTOR].decode(),
        public_key=data[_PUBLIC].decode(),
        created=dt.datetime.fromisoformat(created),
    )
    return key, data


def _opaque(tenant: Tenant, name: str, settings: Settings, data: Mapping[str, bytes]) -> Manifest:
    body = manifest("v1", "Secret", tenant, name, settings.relay_namespace)
    body["type"] = "Opaque"
    body["data"] = _encoded(data)
    return body


def _encoded(data: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(value).decode() for name, value in sorted(data.items())}
