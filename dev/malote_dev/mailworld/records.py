"""The records of the made-up Internet and the answers they give, without a socket.

All names live in one table. A name with an SOA record is the top of a zone, which reaches down to the next such
name; the root is a zone too, so that a name nobody added gets a proper NXDOMAIN instead of silence. One server
plays every authoritative server and, at the same time, the recursive resolver in front of them: aliases
(CNAME) are therefore followed across zones.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

_IN = dns.rdataclass.IN
_MAX_ALIASES = 12
_TXT_STRING = 255
"""A character-string holds at most 255 octets (RFC 1035 section 3.3)."""

RdatasByType = dict[dns.rdatatype.RdataType, dns.rrset.RRset]


class Failure(enum.StrEnum):
    """How the server fails for a name: an error code, or no answer at all."""

    SERVFAIL = "SERVFAIL"
    REFUSED = "REFUSED"
    TIMEOUT = "TIMEOUT"


class Records:
    """Every record of the made-up Internet; see `answer` for the rules."""

    def __init__(self) -> None:
        self._names: dict[dns.name.Name, RdatasByType] = {}
        self._below: Counter[dns.name.Name] = Counter()
        """How many names each name has below it: one that has some exists, even without records (RFC 8020)."""
        self._failures: dict[dns.name.Name, Failure] = {}
        self._signed: set[dns.name.Name] = set()
        self.vouch_unasked = False
        """Whether AD is set for those too who did not ask for it, as some resolvers do."""

    def set(self, name: str, rdtype: str, *values: str, ttl: int = 5) -> None:
        """Publish exactly these values under name and type, in place of any before; without values: delete.

        Names in values are absolute with or without the final dot. A TXT value is the plain text, however long:
        it is split into strings of 255 octets. Raises ValueError for a value that its type does not allow.
        """
        if not values:
            self.delete(name, rdtype)
            return
        owner, kind = _name(name), dns.rdatatype.from_text(rdtype)
        rrset = dns.rrset.RRset(owner, _IN, kind)
        rrset.update_ttl(ttl)
        for value in values:
            try:
                rrset.add(_rdata(kind, value))
            except dns.exception.DNSException as error:
                raise ValueError(f"{name} {rdtype} {value!r}: {error}") from error
        if owner not in self._names:
            self._names[owner] = {}
            self._below.update(_upwards(owner.parent()) if owner != dns.name.root else ())
        self._names[owner][kind] = rrset

    def delete(self, name: str, rdtype: str | None = None) -> None:
        """Take the records of this type (None: of every type) away; nothing happens where there are none."""
        owner = _name(name)
        if owner not in self._names:
            return
        if rdtype is None:
            self._names[owner].clear()
        else:
            self._names[owner].pop(dns.rdatatype.from_text(rdtype), None)
        if not self._names[owner]:
            del self._names[owner]
            self._below.subtract(_upwards(owner.parent()) if owner != dns.name.root else ())

    def get(self, name: str, rdtype: str) -> tuple[str, ...]:
        """The values published, TXT joined to plain text; empty where there are none."""
        rrset = self._names.get(_name(name), {}).get(dns.rdatatype.from_text(rdtype))
        return tuple(_text(rdata) for rdata in rrset or ())

    def fail(self, name: str, failure: Failure | None) -> None:
        """Fail for `name` and everything below it from now on; None: answer again."""
        if failure is None:
            self._failures.pop(_name(name), None)
        else:
            self._failures[_name(name)] = failure

    def sign(self, name: str, *, signed: bool = True) -> None:
        """Answer for `name` and everything below it as a resolver does that found its signatures good (AD)."""
        (self._signed.add if signed else self._signed.discard)(_name(name))

    def _vouched_for(self, name: dns.name.Name) -> bool:
        return any(above in self._signed for above in _upwards(name))

    def failure(self, name: dns.name.Name) -> Failure | None:
        """How the server fails for this name, by the deepest rule that covers it."""
        return next((self._failures[above] for above in _upwards(name) if above in self._failures), None)

    def answer(self, query: dns.message.Message) -> dns.message.Message | None:
        """The response to a query, not yet cut to the transport's size; None: do not answer.

        RFC 1034 section 4.3.2 (algorithm), RFC 2308 (negative answers), RFC 4592 (wildcards), RFC 6891 (EDNS).
        """
        response = dns.message.make_response(query, recursion_available=True, our_payload=1232)
        if query.edns > 0:
            response.set_rcode(dns.rcode.BADVERS)
        elif query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1:
            response.set_rcode(dns.rcode.FORMERR)
        elif query.question[0].rdclass != _IN or query.question[0].rdtype in _TRANSFERS:
            response.set_rcode(dns.rcode.REFUSED)
        else:
            question = query.question[0]
            answered = self._resolve(response, question.name, question.rdtype)
            asked = self.vouch_unasked or query.flags & dns.flags.AD or query.ednsflags & dns.flags.DO
            if answered is not None and asked:
                names = {question.name, *(one.target for rrset in answered.answer for one in _aliases(rrset))}
                if answered.rcode() in _TRUE and all(self._vouched_for(name.canonicalize()) for name in names):
                    answered.flags |= dns.flags.AD
            return answered
        return response

    def _resolve(
        self, response: dns.message.Message, name: dns.name.Name, rdtype: dns.rdatatype.RdataType
    ) -> dns.message.Message | None:
        response.flags |= dns.flags.AA
        for _ in range(_MAX_ALIASES):
            failure = self.failure(name)
            if failure is Failure.TIMEOUT:
                return None
            if failure is not None:
                return _failed(response, dns.rcode.from_text(failure.value))
            rdatas = self._at(name)
            if rdatas is None:
                # With a chain of aliases the code speaks of its last name (RFC 6604 section 3).
                response.set_rcode(dns.rcode.NXDOMAIN)
                self._add_soa(response, name)
                return response
            # A copy: a test may publish from another thread meanwhile.
            found = [rrset for kind, rrset in list(rdatas.items()) if rdtype in (kind, dns.rdatatype.ANY)]
            if found:
                response.answer.extend(_renamed(rrset, name) for rrset in found)
                self._add_addresses(response, found)
                return response
            alias = rdatas.get(dns.rdatatype.CNAME)
            if alias is None:
                self._add_soa(response, name)
                return response
            response.answer.append(_renamed(alias, name))
            name = alias[0].target
        return _failed(response, dns.rcode.SERVFAIL)  # a loop of aliases

    def _at(self, name: dns.name.Name) -> RdatasByType | None:
        """What is at the name; empty for one that only has names below it (RFC 8020); None: no such name."""
        if name in self._names:
            return self._names[name]
        if self._below[name] > 0:
            return {}
        for above in _upwards(name):
            if above != name and (above in self._names or self._below[above] > 0):
                # Only the closest existing name's wildcard counts (RFC 4592 section 3.3.1).
                return self._names.get(dns.name.Name([b"*", *above.labels]))
        return None

    def _add_soa(self, response: dns.message.Message, name: dns.name.Name) -> None:
        for above in _upwards(name):
            if soa := self._names.get(above, {}).get(dns.rdatatype.SOA):
                response.authority.append(soa)
                return

    def _add_addresses(self, response: dns.message.Message, rrsets: Iterable[dns.rrset.RRset]) -> None:
        for rdata in (rdata for rrset in rrsets for rdata in rrset):
            target = getattr(rdata, "exchange", None) or getattr(rdata, "target", None)
            if not isinstance(target, dns.name.Name) or self.failure(target) is not None:
                continue
            for rdtype in _ADDRESSES:
                found = self._names.get(target, {}).get(rdtype)
                if found is not None and found not in response.additional + response.answer:
                    response.additional.append(found)


_TRUE = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)
_ADDRESSES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_TRANSFERS = (dns.rdatatype.AXFR, dns.rdatatype.IXFR)


def _aliases(rrset: dns.rrset.RRset) -> Iterable[Any]:
    return rrset if rrset.rdtype == dns.rdatatype.CNAME else ()


def _failed(response: dns.message.Message, rcode: dns.rcode.Rcode) -> dns.message.Message:
    response.answer.clear()
    response.flags &= ~dns.flags.AA
    response.set_rcode(rcode)
    return response


def _name(text: str) -> dns.name.Name:
    """An absolute name in lower case; compared without regard to case anyway."""
    return dns.name.from_text(text, dns.name.root).canonicalize()


def _upwards(name: dns.name.Name) -> Iterator[dns.name.Name]:
    """The name, its parent, and so on up to the root."""
    yield name
    while name != dns.name.root:
        name = name.parent()
        yield name


def _rdata(rdtype: dns.rdatatype.RdataType, value: str) -> dns.rdata.Rdata:
    if rdtype == dns.rdatatype.TXT:
        octets = value.encode()
        strings = [octets[at : at + _TXT_STRING] for at in range(0, len(octets), _TXT_STRING)] or [b""]
        return dns.rdtypes.ANY.TXT.TXT(_IN, rdtype, strings)
    return dns.rdata.from_text(_IN, rdtype, value, origin=dns.name.root, relativize=False)


def _text(rdata: dns.rdata.Rdata) -> str:
    if isinstance(rdata, dns.rdtypes.ANY.TXT.TXT):
        return b"".join(rdata.strings).decode()
    return rdata.to_text()


def _renamed(rrset: dns.rrset.RRset, name: dns.name.Name) -> dns.rrset.RRset:
    """The set under the name that was asked for: its case is kept, a wildcard is filled in."""
    return dns.rrset.from_rdata_list(name, rrset.ttl, list(rrset))
