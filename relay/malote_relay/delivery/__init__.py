"""How mail leaves: from a queued recipient to a remote server's answer, and what is made of that answer.

`scheduler` decides what is tried when, and writes the ends down. One attempt goes: `route` (which hosts take mail
for this domain, RFC 5321 section 5.1) → `pool` (a session with one of them, within the limits for that destination)
→ `connection` (the SMTP dialogue, on `reply`'s strict parser) → `classify` (what the answer means) → `retry` (when
to try again) or `dsn` (telling the sender). All but scheduler, pool and connection are pure.

Limits are kept by (source address, destination) and a destination is a set of MX hosts, not a domain: reputation and
limits belong to who receives, and one provider serves many domains.
"""
