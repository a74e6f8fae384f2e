"""The StatefulSet of a tenant's relay.

Nothing in its template follows what differs between tenants in the relay's configuration: that is a mounted Secret
which the relay reloads, so that a change of plan, account or domain restarts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from malote_operator import fleet
from malote_operator.api import names
from malote_operator.api.plan import Plan
from malote_operator.api.tenant import Tenant
from malote_operator.settings import Settings, TlsMode

from . import spool
from .common import RELAY, Manifest, labels, manifest, owner, relay_selector
from .relay_config import BOUNCE_PORT

USER = 10001
"""The image's user and group; the spool belongs to the group."""
CONFIG_DIRECTORY = "/etc/malote"
SPOOL_DIRECTORY = "/var/spool/malote"
PROCESSES_ANNOTATION = "malote.dev/processes"
"""How many processes a relay has at its door: read at its start only, so that another number starts new pods."""
SUBMISSION_PORT, SUBMISSIONS_PORT, OBSERVE_PORT = 2587, 2465, 9090


def render(
    tenant: Tenant, plan: Plan, settings: Settings, claim_templates: Sequence[Manifest] | None = None
) -> Manifest:
    """The StatefulSet. `claim_templates`: those of the one that is there; they cannot be changed, so they stay."""
    name = tenant.metadata.name
    body = manifest("apps/v1", "StatefulSet", tenant, names.relay(name), settings.relay_namespace)
    body["spec"] = {
        "replicas": 1,
        "serviceName": names.headless(name),
        # Parallel: a pod that cannot start must not keep its own repair from being rolled out.
        "podManagementPolicy": "Parallel",
        "updateStrategy": {"type": "RollingUpdate"},
        "revisionHistoryLimit": 2,
        # The spool outlives its StatefulSet (someone may delete that by mistake) and goes with the Tenant.
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
        "selector": {"matchLabels": relay_selector(name)},
        "template": {"metadata": _template_metadata(name, settings), "spec": _pod(name, plan, settings)},
        "volumeClaimTemplates": list(claim_templates)
        if claim_templates is not None
        else [_claim(tenant, plan, settings)],
    }
    return body


def _template_metadata(name: str, settings: Settings) -> Manifest:
    metadata: Manifest = {"labels": labels(name, RELAY)}
    if processes := fleet.base(settings.relay.config).listen.processes:
        metadata["annotations"] = {PROCESSES_ANNOTATION: str(processes)}
    return metadata


def _pod(name: str, plan: Plan, settings: Settings) -> Manifest:
    pod: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.relay.termination_grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(plan, settings)],
        "volumes": [
            _secret_volume("config", names.relay(name)),
            _keys_volume(name, settings),
            _secret_volume("tls", _tls_secret(name, settings)),
        ],
    }
    if settings.relay.credentials_secret:
        # Mail may wait for a password; the relay, and what it is told, must not: a suspension above all.
        passwords = _secret_volume("credentials", settings.relay.credentials_secret)
        passwords["secret"]["optional"] = True
        pod["volumes"].append(passwords)
    if settings.relay.node_selector:
        pod["nodeSelector"] = dict(settings.relay.node_selector)
    if settings.image.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.image.pull_secrets]
    return pod


def _container(plan: Plan, settings: Settings) -> Manifest:
    container: Manifest = {
        "name": RELAY,
        "image": settings.image.reference,
        "imagePullPolicy": settings.image.pull_policy,
        "command": ["malote-relay"],
        "args": ["--config", CONFIG_DIRECTORY, "--spool", SPOOL_DIRECTORY],
        "ports": [
            {"name": "submission", "containerPort": SUBMISSION_PORT, "protocol": "TCP"},
            {"name": "submissions", "containerPort": SUBMISSIONS_PORT, "protocol": "TCP"},
            {"name": "observe", "containerPort": OBSERVE_PORT, "protocol": "TCP"},
        ],
        "resources": plan.spec.relay.resources or settings.relay.resources,
        # Why a relay ended is in its log; this way the Tenant's conditions say it, too.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        # The whole store is read before the listeners open, and put right if it is damaged. A quarter of an hour is
        # allowed for that (50 GB from a disk of 56 MB/s); then life is watched.
        "startupProbe": _probe("/healthz", period=2, failures=450),
        "livenessProbe": _probe("/healthz", period=10, failures=6),
        "readinessProbe": _probe("/readyz", period=2, failures=3),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
        },
        "volumeMounts": [
            {"name": "config", "mountPath": f"{CONFIG_DIRECTORY}/config", "readOnly": True},
            {"name": "keys", "mountPath": f"{CONFIG_DIRECTORY}/keys", "readOnly": True},
            {"name": "tls", "mountPath": f"{CONFIG_DIRECTORY}/tls", "readOnly": True},
            {"name": "spool", "mountPath": SPOOL_DIRECTORY},
        ],
    }
    if settings.bounces.enabled:
        container["ports"].append({"name": "bounces", "containerPort": BOUNCE_PORT, "protocol": "TCP"})
    if settings.relay.credentials_secret:
        place = {"name": "credentials", "mountPath": f"{CONFIG_DIRECTORY}/credentials", "readOnly": True}
        container["volumeMounts"].append(place)
    return container


def _probe(path: str, *, period: int, failures: int) -> Manifest:
    return {
        "httpGet": {"path": path, "port": "observe", "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _keys_volume(name: str, settings: Settings) -> Manifest:
    """The tenant's keys, and beside them those that the platform gives all relays."""
    if not settings.relay.keys_secret:
        return _secret_volume("keys", names.relay_keys(name))
    secrets = (names.relay_keys(name), settings.relay.keys_secret)
    return {
        "name": "keys",
        "projected": {"sources": [{"secret": {"name": secret}} for secret in secrets], "defaultMode": 0o440},
    }


def _secret_volume(volume: str, secret: str) -> Manifest:
    return {"name": volume, "secret": {"secretName": secret, "defaultMode": 0o440}}


def _tls_secret(name: str, settings: Settings) -> str:
    return settings.tls.secret_name if settings.tls.mode is TlsMode.SECRET else names.tls(name)


def _claim(tenant: Tenant, plan: Plan, settings: Settings) -> Manifest:
    storage = plan.spec.relay.storage
    class_name = storage.storage_class_name or settings.relay.storage_class_name
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": storage.size or spool.size(plan.spec)}},
    }
    if class_name:
        spec["storageClassName"] = class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "spool",
            "labels": labels(tenant.metadata.name, RELAY),
            "ownerReferences": [owner(tenant) | {"controller": False}],
        },
        "spec": spec,
    }
