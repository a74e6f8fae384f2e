"""The local world: a control plane, a node, DNS, mail hosts. For the demo and the tests; no product code needs it."""
