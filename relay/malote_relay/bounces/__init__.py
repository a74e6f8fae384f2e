"""Taking in what comes back after delivery: asynchronous bounces and complaints.

A server that took a message may find out later that it cannot deliver it, and then sends a report (RFC 3464) to the
reverse-path; a mailbox provider tells with another (ARF, RFC 5965) that a recipient called a message spam. Where a
domain has a return path of the relay's own (`malote_relay.returnpath`), both come here::

    server.py    the listener, how many sessions there may be, and what a client may send
    session.py   the dialogue: no AUTH, recipients are return paths and feedback addresses only
    intake.py    what is done with a message: read, matched, written down; only then 250
    events.py    the message it is about, found in the store, and the event that is added
    original.py  the header section of that message, as it came back
    mime.py      any octets as a tree of MIME parts, with bounded work
    reading.py   what a message is
    dsn.py       reports on delivery, structured or not;  text.py  those that are only words
    arf.py       complaints
    verdict.py   what a report means: which class of bounce

The parsers never raise, whatever they are given, and do a bounded amount of work. Nothing here is relayed on.
"""
