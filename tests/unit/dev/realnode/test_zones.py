"""Zone files that CoreDNS takes up."""

from __future__ import annotations

from pathlib import Path

import dns.zone

from malote_dev.realnode.zones import Zones, quoted


def test_every_change_has_a_new_serial_and_the_file_is_a_zone(tmp_path: Path) -> None:
    zones = Zones(tmp_path)
    zones.set("acme.example", ["@ IN A 192.0.2.1"])
    first = dns.zone.from_file(str(tmp_path / "db.acme.example"), "acme.example.")
    zones.add("acme.example", '@ IN TXT "v=spf1 -all"')
    second = dns.zone.from_file(str(tmp_path / "db.acme.example"), "acme.example.")
    assert second.get_soa().serial > first.get_soa().serial
    assert second.get_rdataset("@", "TXT") is not None
    zones.drop("acme.example", '@ IN TXT "v=spf1')
    assert dns.zone.from_file(str(tmp_path / "db.acme.example"), "acme.example.").get_rdataset("@", "TXT") is None


def test_the_root_is_there_from_the_start_so_that_unknown_names_do_not_exist(tmp_path: Path) -> None:
    Zones(tmp_path)
    assert dns.zone.from_file(str(tmp_path / "db.."), ".").get_soa() is not None


def test_a_long_value_is_split_and_means_the_same(tmp_path: Path) -> None:
    value = "v=DKIM1; p=" + "A" * 400 + '"\\'
    zones = Zones(tmp_path)
    zones.set("acme.example", [f"k IN TXT {quoted(value)}"])
    found = dns.zone.from_file(str(tmp_path / "db.acme.example"), "acme.example.").get_rdataset("k", "TXT")
    assert found is not None
    (record,) = found
    assert b"".join(record.strings).decode() == value
    assert [len(part) for part in record.strings] == [255, len(value) - 255]
