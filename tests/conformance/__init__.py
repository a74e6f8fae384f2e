"""A conformance suite for SMTP submission servers (RFC 6409), to be run against any host and port.

::

    python -m tests.conformance --host H --port 587 --tls starttls --user U --password-env P --from A --to B
    python -m tests.conformance.postfix        # the same table for a Postfix of its own, for comparison

Each case is one requirement of one section of an RFC, in our own words, with what the RFC says it is: MUST or
SHOULD. A case whose extension the server does not offer in its EHLO reply is "not offered", not passed; a case that
asks what became of a message needs `--spool`, a Maildir that the messages to `--to` end up in, else it is "not seen".

    client.py     sockets, TLS and replies: strict about what a server may say, without opinion about what it must
    case.py       what a case is, and how the files in cases/ declare theirs
    server.py     the server that is judged, and the ways to each state of a session
    delivered.py  what arrived at the other end
    report.py     runs cases, prints the table
    cases/        the cases, one file a subject

The suite judges the relay, so it shares no code with it, and uses no SMTP library: it must say what those refuse to.
"""
