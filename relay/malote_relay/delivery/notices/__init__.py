"""Telling senders: that mail was not delivered, is late, or went where nobody tells (RFC 3461, 3464).

`due` decides who is told what, `dsn` writes it in the `words` of a language, `allowance` limits how many there are.
`notifier` makes them, signed; they are kept like any accepted mail, in one transaction with the ends they tell of.
"""
