"""Asking a running relay, and telling it: a Unix socket in its spool, and the command `malote-relayctl` that uses it.

Whoever may enter the spool as its owner may use the socket (mode 0600); there is no other authentication. A request
is one line, a JSON object with the command's name and its arguments::

    {"command": "queue", "domain": "dest.example", "limit": 10}

The answer is one line or more: for a list a line a row, so that neither side ever holds a long queue, and a line that
ends it. ::

    {"row": {"message": "…", "recipient": "…"}}
    {"end": 1}

Other answers are one line, `{"answer": {…}}`. Instead of either, or after some rows, there may be
`{"error": "what was wrong and what to do"}`. Requests follow one another on a connection.

What can be asked is up to the parts of the relay: they register their commands with `registry.Controls`, and the
program learns them from the relay it talks to.
"""
