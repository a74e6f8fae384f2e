"""How mail leaves: from a queued recipient to a remote server's answer, and what is made of that answer.

From the top down; what stands lower imports nothing that stands higher:

- `queue/`: what is tried when, and what is written down of it;
- `destinations/`: who may have a session with a destination, and how fast mail goes over it;
- `dialogue/`: SMTP with one server; `notices/`: telling senders;
- `answers/`: what a server's answer means; `conversion/`: a message in 7 bits, for a server that wants it so.

One attempt goes through all of them: a `route` finds the hosts that take mail for a domain (RFC 5321 section 5.1), a
destination gives a session with one of them, the dialogue carries the message, its answer becomes an outcome, and
that perhaps a notice. `tls/` says what TLS the session must have.

Beside them stands what they share: a `peer` and how to `reach` it (through `socks` perhaps), a server's `reply` and
its strict parser, a message's `content`, the `parameters` of DSN.
"""
