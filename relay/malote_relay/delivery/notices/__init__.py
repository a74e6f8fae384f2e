"""Telling senders: that mail was not delivered, is late, or went where nobody tells (RFC 3461, 3464).

`due` decides who is told what, `dsn` writes it in the `words` of a language, `allowance` limits how many there are,
`notifier` keeps it like any accepted mail.
"""
