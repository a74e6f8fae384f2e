"""A Kubernetes node that runs pods as plain local processes, without containers, images or root.

It registers a Node, binds pending pods to itself and plays the kubelet for them: volumes are folders, a container is
a process, a pod's address is one of 127/8 of its own. What it keeps true is what programs can see of a kubelet:
environment, files and their atomic updates, probes, restarts and back-off, termination grace, status. What it cannot
do is isolate: no images, no resource limits, no security contexts, no read-only mounts, no NetworkPolicy;
`malote_dev.realnode` is for those.

| module | subject |
|---|---|
| `node` | the Node object, its lease, the watches; one `pod` runner for each pod |
| `pod`, `container` | a pod's life; a container's process, restarts and states |
| `probes`, `actions` | when to probe and what follows; one probe or hook carried out |
| `environment`, `paths` | variables and their expansion; mount paths rewritten to local folders (pure) |
| `payloads`, `volumes`, `atomicfiles` | what a volume holds; its folder; how files are swapped |
| `claims` | PersistentVolumeClaims as folders |
| `status`, `events` | what the API server is told |
| `logserver` | what ``kubectl logs`` asks |
| `addresses` | addresses out of 127/8 that no other node of this machine uses |
"""

from malote_dev.processnode.node import ProcessNode

__all__ = ["ProcessNode"]
