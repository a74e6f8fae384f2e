"""How mail leaves: from a queued recipient to a remote server's answer, and what is made of that answer.

The way of a message through the files:

- What is tried when: `scheduler` (the whole; what it is asked and told) has a `window` on the store's queue, with its
  `lanes` and the domains `leftalone`, and makes `jobs` of what is in it. `recorder` writes the ends down. `upkeep`
  and its `watchdog` see that nothing waits too long; `waiting` says why something waits, `commands` let people ask.
- One attempt (`attempt`): `route` finds the hosts that take mail for the domain (RFC 5321 section 5.1), `pool` gives
  a session with one of them, `connection` speaks SMTP on it.
- Who may have a session: each `destination` (`destinations` knows them all) has one of the `lines`; `room` says how
  many connections there may be, `sessions` keeps those that are open, `dialling` opens one more.
- How fast: `shapes` is what is configured, by the `providers` that are known too; `shaping` feels its way below that,
  with a `bucket` for each rate; `complaint` hears when a destination has too much of us.
- The dialogue: an `envelope` and its `content`, whose `fitness` for the server is seen before; octets and time limits
  in `wire`, on the strict parser of `reply`; `parameters` of DSN, `login` at a smart host, `reach` and `socks` to get
  to a `peer` at all. What TLS there must be is in `tls`.
- What an answer means: `classify` by `rules` that are data (replies.toml), `outcome` for the store, `retry` for when.
- Telling the sender: `notices` decides what, `dsn` writes it in the `words` of a language, `allowance` limits how
  many, `notifier` keeps it like any accepted mail.

Limits are kept by (source address, destination) and a destination is a set of MX hosts, not a domain: reputation and
limits belong to who receives, and one provider serves many domains.
"""
