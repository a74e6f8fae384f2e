"""Who may have a session with a destination, how many there are, and how fast mail goes over them.

`pool` is the whole: it gives a session for a way and takes it back. The `registry` knows each `destination`, which
has one of the `lines` for those who wait; `room` says how many connections there may be, `sessions` keeps those that
are open, `dialling` opens one more. `shapes` is what is configured, by known providers too; `shaping` feels its way
below that, with a `bucket` for each rate.

Limits are kept by (source address, destination) and a destination is a set of MX hosts, not a domain: reputation and
limits belong to who receives, and one provider serves many domains.
"""
