"""Taking mail from a tenant's clients: SMTP submission (RFC 6409) with AUTH, over STARTTLS or implicit TLS.

A message's way in, one file a station::

    server.py     listeners, who finds a place, the graceful end
    listener.py   the sockets; connections accepted; the handshake of TLS, once there is a place for the client
    proxy.py      the client's address by the PROXY protocol;  client.py  who counts as one client
    admission.py  how many sessions and connections a client may have;  crowd.py  how many sessions there are
    wire.py       one connection on aiosmtpd: command lines in, replies out in batches, TLS, time-outs
    session.py    the dialogue, aiosmtpd's commands and ours: EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA …
    commands.py   a command line taken apart;  address.py  paths and mailboxes (RFC 5321)
    signin.py     AUTH in the dialogue;  auth.py  PLAIN and LOGIN;  guard.py  what a failure costs
    dsn.py        what is asked for with DSN
    transfer.py   the content on its way in, by DATA or BDAT
    data.py       DATA in blocks, to CRLF.CRLF and nothing else (no smuggling); chunks; the rules for both
    body.py       where the content waits: in memory, or on disk when it is large
    headers.py    the header section taken apart, and the address in From
    policy.py     who may send what: pure decisions;  replies.py  the words they are told in
    hygiene.py    what is added to and taken from a message before it is signed
    acceptance.py the door: policy, sender check, signature; then the desk
    desk.py       the desk: charge and commit; only then 250

The decisions are pure functions, tested without a socket. What cannot be understood without doubt is refused:
a relay that guesses can be made to sign what its tenant never wrote.

A connection's protocol is aiosmtpd's `SMTP`. Its are the life of a connection with its writer, the
session that STARTTLS forgets, the table of commands, EHLO, HELO, NOOP, RSET, and AUTH with LOGIN. Overridden is what
it does otherwise than this relay must: only CRLF ends a line, there is no wait without an end, every reply has an
enhanced status code, replies to pipelined commands leave together, MAIL and RCPT are parsed strictly and cheaply,
DATA is read in blocks and not line by line, failed sign-ins cost time, and nothing is looked up or inspected per
connection.
"""
