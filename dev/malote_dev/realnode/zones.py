"""The cluster's DNS zones for the made-up Internet: one file each, which CoreDNS takes up within a second."""

from __future__ import annotations

from pathlib import Path

from malote_dev.realnode.network import NODE_ADDRESS

ROOT = "."
"""The zone of everything else: what is in no other zone does not exist."""


class Zones:
    """The zones that CoreDNS serves; each is served authoritatively at the node's address."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._serial = 0
        self._records: dict[str, list[str]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self.set(ROOT, [])

    def set(self, zone: str, records: list[str]) -> None:
        """Make a zone hold exactly these records, in master file form (RFC 1035 section 5.1)."""
        self._records[zone] = list(records)
        self._write(zone)

    def add(self, zone: str, *records: str) -> None:
        """Add records to a zone."""
        self.set(zone, [*self._records.get(zone, []), *records])

    def drop(self, zone: str, beginning: str) -> None:
        """Remove a zone's records that begin with these characters."""
        self.set(zone, [record for record in self._records[zone] if not record.startswith(beginning)])

    def serial(self) -> int:
        """The serial number of the zone written last; CoreDNS has taken it up when it answers with it."""
        return self._serial

    def _write(self, zone: str) -> None:
        # CoreDNS reads a file again when the serial in its SOA record has changed.
        self._serial += 1
        absolute = zone if zone.endswith(".") else f"{zone}."
        server = "ns.malote-node."
        lines = [
            f"$ORIGIN {absolute}",
            "$TTL 1",
            f"{absolute} 1 IN SOA {server} hostmaster.malote-node. {self._serial} 60 60 60 1",
            f"{absolute} 1 IN NS {server}",
            *self._records[zone],
        ]
        if zone == ROOT:
            lines.append(f"{server} 1 IN A {NODE_ADDRESS}")
        scratch = self._folder / f".{zone}.part"
        scratch.write_text("\n".join(lines) + "\n")
        # A dot and an empty name is how the root's file is called.
        scratch.replace(self._folder / f"db.{zone}")


def quoted(value: str) -> str:
    """A TXT record's value in master file form, split at 255 octets (RFC 1035 section 3.3)."""
    escaped = [value[start : start + 255] for start in range(0, len(value), 255)]
    return " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in escaped)
