"""The DNS records of a sending domain: what they should say, what is seen, and what differs.

A domain may be sent from when its owner has published three entries: SPF (RFC 7208: who may send for the
domain), DKIM (RFC 6376: the public key its mail is signed with) and DMARC (RFC 7489: what receivers should
make of the other two). A host to which its bounces come back, the return path, needs two more: an MX record
(RFC 5321: where its mail goes) and an SPF record of its own, since SPF looks at the reverse-path. `expected`
says what to publish, `lookup` asks the domain's own servers, `compare` says in words what is wrong. Only
`lookup` touches the network.
"""
