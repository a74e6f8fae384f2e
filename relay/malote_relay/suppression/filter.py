"""Which addresses may be on the list: a Bloom filter, so that most questions never reach the database.

It errs in one direction only: an address that is on the list is always said to be. It cannot forget; an address that
has left costs a look-up until the filter is made anew.
"""

from __future__ import annotations

from typing import Final

_BITS_PER_ADDRESS: Final = 16
_LEAST_BITS: Final = 1 << 16
_MOST_BITS: Final = 1 << 25
"""4 MiB: at two million addresses one in two hundred others is looked up in vain; beyond, more of them."""


class Filter:
    """A filter with room for `expected` addresses, and as many again."""

    def __init__(self, expected: int = 0) -> None:
        wanted = max(1, 2 * expected) * _BITS_PER_ADDRESS
        bits = min(_MOST_BITS, max(_LEAST_BITS, 1 << (wanted - 1).bit_length()))
        self._mask = bits - 1
        self._octets = bytearray(bits // 8)
        self._added = 0

    @property
    def size(self) -> int:
        """Octets of memory."""
        return len(self._octets)

    @property
    def crowded(self) -> bool:
        """Whether it has more addresses than it has room for, and a larger one would help."""
        return self._added * _BITS_PER_ADDRESS > self._mask and self._mask + 1 < _MOST_BITS

    def add(self, address: str) -> None:
        """From now on the address may be on the list."""
        octets = self._octets
        for bit in self._bits(address):
            octets[bit >> 3] |= 1 << (bit & 7)
        self._added += 1

    def __contains__(self, address: str) -> bool:
        octets = self._octets
        first, second, third = self._bits(address)
        return bool(
            octets[first >> 3] & (1 << (first & 7))
            and octets[second >> 3] & (1 << (second & 7))
            and octets[third >> 3] & (1 << (third & 7))
        )

    def _bits(self, address: str) -> tuple[int, int, int]:
        # Python's hash has 64 bits and a secret of this process: nobody can make addresses collide.
        value = hash(address)
        mask = self._mask
        return value & mask, (value >> 20) & mask, (value >> 39) & mask
