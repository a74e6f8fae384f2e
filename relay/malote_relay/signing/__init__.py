"""DKIM signatures (RFC 6376; Ed25519: RFC 8463) on everything that leaves.

`canonical` brings header and body into the form that is hashed, `fields` chooses the header fields, `keys` reads the
private keys, and `signer` puts it together, in threads of its own.
"""
