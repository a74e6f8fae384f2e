"""What TLS a session must have, and what is told of it.

A domain can publish that its mail must travel encrypted, in two ways: DANE (RFC 7672), records in the signed DNS
that say which certificate a mail host has; and MTA-STS (RFC 8461), a file on a web server that says which hosts are
the domain's and that the usual authorities vouch for them. Without either TLS is opportunistic (RFC 7435): better
than nothing against those who only listen. DANE comes before MTA-STS, and MTA-STS before nothing.

* `security`: what one session must have, as a value;
* `handshake`: how such a session's TLS is begun and checked, and what may be tried after a failure;
* `dane`: finding TLSA records; `tlsa`: which of them can be used; `certificates`: a server's against them;
* `mtasts`: policies as text; `policies`: fetching, keeping and renewing them; `https`: the small client for that;
* `guard`: both put together, a route in and a secured route out;
* `results`: what happened; `tally`: counted by day; `report`: a day's report (RFC 8460); `reporter`: sending it;
* `service`: all of it as one part of delivery.
"""
