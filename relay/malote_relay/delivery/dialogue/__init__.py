"""SMTP with one server, as a client (RFC 5321).

`connection` speaks it: greeting, EHLO, STARTTLS, pipelined MAIL, RCPT and DATA. An `envelope` is what it carries,
whose `fitness` for what the server offers is seen before; octets and time limits are in `wire`, `login` is for a
smart host.
"""
