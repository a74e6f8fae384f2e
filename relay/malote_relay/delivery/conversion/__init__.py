"""A message made fit for a server without 8BITMIME: 8-bit content as 7-bit MIME (RFC 6152 section 3).

Mail may hold octets above 127 only where the server says that it takes them. Where it does not, each part that has
such octets is encoded (RFC 2045 section 6): text as quoted-printable, all else as base64. Nothing else changes:
header fields keep their folding, parts that need no encoding their octets. A part may not be changed where that would
break a signature (RFC 1847), and a header field with 8-bit octets has no other form: such mail goes back to its
sender.

From the top down: the `converter` runs it beside the event loop, out of a file and into one; `rewrite` looks first
and writes then; it reads with `structure`, which finds the parts of a message block by block by their `fields`, from
a `source`; `encoders` know the two encodings.
"""
