"""`make demo`: the whole main job on this machine, told step by step.

`world` brings up what stands in for a cluster and the Internet, `story` is what happens in it, `account`
prints it for people. Nothing here is simulated: the operator, the relays, the API server and the mail are real.
"""
