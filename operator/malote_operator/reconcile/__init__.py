"""Making the world equal to what resources say, one object at a time, again and again.

`engine` hands keys to workers, `queue` decides when; each kind has one function `reconcile(key)` that reads the
present state, lets `policy` decide, applies what `render` describes, writes the status and says when to look
again. It never acts on what changed, only on what is: so it may be interrupted anywhere and started anew.
"""
