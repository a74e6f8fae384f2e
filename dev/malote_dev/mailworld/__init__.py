"""A made-up Internet for mail: what a relay meets when it looks outside.

Mail finds its way by DNS: the sender's domain publishes who may send for it (SPF, DKIM, DMARC), the recipient's
domain publishes which hosts take its mail (MX). This package stands in for all of that on addresses of 127/8,
so that the demonstration and the tests send real mail over real sockets and nothing leaves the machine:

* `dns`: a DNS server whose records and failures are changed while it runs (`records` holds its answers);
* `mx`: a mail host that accepts, defers, refuses, greylists, stalls or breaks as told (`behaviour`), and keeps
  what it received (`received`); `conversation` is one connection to it, `hooks` its replies to commands;
* `mailboxes`: the mail host of a sender's own domain, which knows the mailboxes that exist there;
* `verify`: what a recipient's host finds when it checks SPF, DKIM and DMARC with public verifiers;
* `client`: how a tenant's application sends;
* `web`: a web server for MTA-STS policies, which also takes TLS reports;
* `proxy`: a SOCKS5 proxy that mail may leave through;
* `certificates`: good, expired, self-signed and misnamed certificates for the hosts;
* `commands`, `control`: the same hosts as stand-alone processes with an HTTP control, for pods.
"""
