"""The files that the node's daemons read, as functions of where things are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from malote_dev.realnode.images import PAUSE
from malote_dev.realnode.network import NODE_ADDRESS, POD_NETWORK

NODE_NAME = "malote-node"
CLUSTER_DOMAIN = "cluster.local"


def containerd(root: Path, state: Path, cni: Path, *, restrict_oom: bool) -> str:
    """containerd's configuration (version 2: what containerd 1.4 to 1.7 read)."""
    return f"""\
version = 2
root = "{root}"
state = "{state}"
oom_score = 0
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]

[grpc]
  address = "{state}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  # Without CAP_SYS_RESOURCE nobody may lower a process's OOM score, and runc fails where it is asked to.
  restrict_oom_score_adj = {str(restrict_oom).lower()}
  # Below the state folder, so that whoever removes that removes them.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
"""


def cni(name: str, addresses: Path) -> str:
    """The pods' network: a routed point-to-point link each.

    Unlike on a bridge, every packet between two pods passes the node's packet filter, so that Services and
    NetworkPolicies see it.
    """
    conflist = {
        "cniVersion": "0.4.0",
        "name": name,
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(addresses),
                    "ranges": [[{"subnet": POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    return json.dumps(conflist, indent=2)


def kubeconfig(server: str, authority: Path, token: str) -> str:
    """A kubeconfig for the holder of `token` (JSON is YAML)."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "malote", "cluster": {"server": server, "certificate-authority": str(authority)}}],
            "users": [{"name": "malote", "user": {"token": token}}],
            "contexts": [{"name": "malote", "context": {"cluster": "malote", "user": "malote"}}],
            "current-context": "malote",
        },
        indent=2,
    )


def kubelet(socket: Path, state: Path, cgroup: str) -> str:
    """KubeletConfiguration. Its API is open to everyone in the namespace: only the run itself is there."""
    configuration: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "containerRuntimeEndpoint": f"unix://{socket}",
        # A test node lives for minutes on a machine that may be nearly full.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "failSwapOn": False,
        "podLogsDir": str(state / "pod-logs"),
        "resolvConf": str(state / "resolv.conf"),
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "registerNode": True,
        "shutdownGracePeriod": "0s",
        "volumePluginDir": str(state / "volume-plugins"),
    }
    return json.dumps(configuration, indent=2)


def kube_proxy(kubeconfig: Path) -> str:
    """KubeProxyConfiguration. Connection tracking limits are the machine's: a namespace cannot set them."""
    return json.dumps(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "bindAddress": NODE_ADDRESS,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            "clusterCIDR": POD_NETWORK,
            "hostnameOverride": NODE_NAME,
            "mode": "iptables",
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
            "iptables": {"minSyncPeriod": "100ms"},
        },
        indent=2,
    )


def corefile(kubeconfig: Path, zones: Path) -> str:
    """CoreDNS: the cluster's Services, and one file a zone in `zones` for the made-up Internet."""
    return f"""\
.:53 {{
    bind {NODE_ADDRESS}
    errors
    ready {NODE_ADDRESS}:8181
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig} malote
        fallthrough in-addr.arpa ip6.arpa
        ttl 1
    }}
    auto {{
        directory {zones} db\\.(.*) {{1}}
        reload 300ms
    }}
}}
"""
