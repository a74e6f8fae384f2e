"""The envelope of one outgoing transaction: from whom, to whom, and what it needs of the server. Pure."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from malote_relay.delivery.content import Content
from malote_relay.delivery.parameters import original_recipient
from malote_relay.resolver import NoSuchDomain, ascii_name
from malote_relay.store.model import DsnRequest


@dataclass(frozen=True, slots=True)
class Envelope:
    """One transaction. `size` is the content's octets as stored (RFC 1870).

    `dsn` is what the client asked for, for each of the recipients in their order; empty for nothing to pass on.
    """

    reverse_path: str
    recipients: Sequence[str]
    content: Content
    size: int
    eight_bit: bool = False
    smtputf8: bool = False
    dsn: Sequence[DsnRequest] = ()

    def in_ascii(self) -> Envelope:
        """The same with addresses in ASCII where they can be; who reports later still names them as they were."""
        asked = zip(self.recipients, self.dsn, strict=bool(self.dsn))
        return dataclasses.replace(
            self,
            reverse_path=_in_ascii(self.reverse_path),
            recipients=[_in_ascii(one) for one in self.recipients],
            dsn=[dataclasses.replace(dsn, orcpt=dsn.orcpt or original_recipient(one)) for one, dsn in asked],
        )

    def needs_utf8(self) -> bool:
        """Whether an address or a header field of it is not ASCII: what SMTPUTF8 is for (RFC 6531 section 3.4).

        Reads from disk when the content is a file.
        """
        return not "".join((self.reverse_path, *self.recipients)).isascii() or not self.content.headers().isascii()

    def part(self, places: Sequence[int]) -> Envelope:
        """The same for some of its recipients."""
        return dataclasses.replace(
            self,
            recipients=[self.recipients[place] for place in places],
            dsn=[self.dsn[place] for place in places] if self.dsn else (),
        )


def _in_ascii(address: str) -> str:
    """The address with its domain as the DNS has it, where that makes all of it ASCII (RFC 5890 section 2.3.2.1)."""
    local, at, domain = address.rpartition("@")
    if domain.isascii() or not local.isascii():
        return address
    with contextlib.suppress(NoSuchDomain):
        return f"{local}{at}{ascii_name(domain)}"
    return address
