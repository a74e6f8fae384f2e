"""A real Kubernetes node on one machine, without a container engine or an image registry (root, Debian or Ubuntu).

The process node (`malote_dev.processnode`) runs pods as plain processes; that proves the programs. This package
proves the rest of what a cluster does to them: images, containerd, the kubelet and its probes, volumes and their
ownership, Pod Security, Services, NetworkPolicies, cluster DNS. All of it lives inside one network namespace that a
run makes and removes, and in one state folder; what takes minutes to build (the images) is kept in the cache, keyed
by what it was built from.

`images` builds, `network` makes the namespace, `configs` writes the daemons' files, `daemons` runs them, `cri` loads
images and cleans up after containerd, `zones` is the made-up Internet's DNS, `internet` its mail hosts, `policies`
enforces NetworkPolicies, `storage` has the volumes, `node` ties it together.
"""
