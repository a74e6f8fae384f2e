"""What is tried when, and what is written down of it.

`scheduler` is the whole, which the rest of the relay asks and tells. It has a `window` on the store's queue, with its
`lanes` and the domains `leftalone`, and makes `jobs` of what is in it; a job is one message's `attempt` at one way,
with a `negotiation` where a host lacks what the message needs.
`recorder` writes the ends down, together with the notices that follow from them. `upkeep` and its `watchdog` see that
nothing waits too long; `waiting` says why something waits, `commands` let people ask.
"""
