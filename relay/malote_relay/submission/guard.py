"""What failed sign-ins cost, and when one is refused without a look at the password.

Passwords have at least 192 random bits: guessing them is hopeless, and the guard is there to keep guessers from
taking the relay's time. The damage that a guard itself can do is larger: to lock rightful users out. So

- each failure delays its own answer, the longer the more there were; a right password is never delayed;
- a client that has failed too often is refused, and so is a client that has failed too often with one account. The
  second bound is the lower one: an application that goes on with an old password uses up its own tries, not those of
  others that come from the same address;
- an account that has failed too often, from wherever, is under attack: every client then has one failure with it.
  A rightful user, from an address never seen before, gets in at the first try all the same;
- a client that has signed in to the account within the last days is looked at however many others fail there, and
  however often it failed with other accounts. It has a bound of its own, a high one: behind an address that many
  share, a load balancer's that names no clients, nobody guesses without end. Only who is there can use it up.

Failures are forgotten one by one, evenly over the window. Names that do not exist are counted like those that do, and
every refusal reads the same, so that nobody learns which there are.

Where several processes listen on the same ports each has a guard, and tells the others what it saw.
"""

from __future__ import annotations

from typing import Final, TypeVar

from malote_relay.config import SignIn
from malote_relay.submission.admission import Seen, Told

T = TypeVar("T")

MAX_KEPT: Final = 10_000
"""Clients, accounts and pairs of both that are remembered, each: the oldest go first."""

_FIRST_DELAY: Final = 0.5
_MAX_DELAY: Final = 8.0
_MAX_NAME: Final = 256


class _Failures:
    """How many there were of each key, forgetting them evenly."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, ...], tuple[float, float]] = {}

    def level(self, key: tuple[str, ...], most: int, window: float, now: float) -> float:
        """What is left of a key's failures, of which `most` are forgotten in `window` seconds."""
        level, at = self.kept.get(key, (0.0, now))
        return max(0.0, level - (now - at) * most / window)

    def add(self, key: tuple[str, ...], most: int, window: float, now: float) -> float:
        """Count one more, and give the level with it."""
        level = self.level(key, most, window, now) + 1
        self.kept.pop(key, None)
        self.kept[key] = (level, now)
        _drop_oldest(self.kept)
        return level


class Guard:
    """Counts failures. A client is what `client.network` makes of its address; `now` is from any steady clock.

    `told` hears of what `failed` and `succeeded` are told; what was seen elsewhere comes by `note`.
    """

    def __init__(self, told: Told | None = None) -> None:
        self._told = told
        self._of_client = _Failures()
        self._of_account = _Failures()
        self._of_both = _Failures()
        self._of_known = _Failures()
        self._known: dict[tuple[str, ...], float] = {}

    def refuses(self, client: str, username: str, settings: SignIn, now: float) -> bool:
        """Whether this client may not try this account now."""
        account = username[:_MAX_NAME]
        both = (client, account)
        window = settings.window
        if self._is_known(both, settings, now):
            most = settings.max_failures_per_known_client
            return self._of_known.level(both, most, window, now) > most - 1
        most = settings.max_failures_per_client
        if self._of_client.level((client,), most, window, now) > most - 1:
            return True
        most = settings.max_failures_per_account
        under_attack = self._of_account.level((account,), most, window, now) > most - 1
        allowed = settings.max_failures_per_client_and_account
        left = self._of_both.level(both, allowed, window, now)
        return left > (0 if under_attack else allowed - 1)

    def failed(self, client: str, username: str, settings: SignIn, now: float) -> float:
        """Note a failure, and give the delay in seconds before it is answered."""
        if self._told is not None:
            self._told(Seen.FAILED, client, username[:_MAX_NAME])
        return self._note_failure(client, username, settings, now)

    def note(self, seen: Seen, client: str, username: str, settings: SignIn, now: float) -> None:
        """Note what another process saw of this client."""
        if seen is Seen.FAILED:
            self._note_failure(client, username, settings, now)
        elif seen is Seen.SIGNED_IN:
            self._note_success(client, username, now)

    def _note_failure(self, client: str, username: str, settings: SignIn, now: float) -> float:
        account = username[:_MAX_NAME]
        both = (client, account)
        window = settings.window
        level = max(
            self._of_client.add((client,), settings.max_failures_per_client, window, now),
            self._of_account.add((account,), settings.max_failures_per_account, window, now),
        )
        self._of_both.add(both, settings.max_failures_per_client_and_account, window, now)
        if self._is_known(both, settings, now):
            self._of_known.add(both, settings.max_failures_per_known_client, window, now)
        return float(min(_MAX_DELAY, _FIRST_DELAY * 2.0 ** min(round(level) - 1, 10)))

    def succeeded(self, client: str, username: str, now: float) -> None:
        """Note that this client has signed in to this account."""
        if self._told is not None:
            self._told(Seen.SIGNED_IN, client, username[:_MAX_NAME])
        self._note_success(client, username, now)

    def _note_success(self, client: str, username: str, now: float) -> None:
        both = (client, username[:_MAX_NAME])
        self._known.pop(both, None)
        self._known[both] = now
        _drop_oldest(self._known)

    def _is_known(self, both: tuple[str, ...], settings: SignIn, now: float) -> bool:
        at = self._known.get(both)
        return at is not None and now - at < settings.remembered_for


def _drop_oldest(kept: dict[tuple[str, ...], T]) -> None:
    while len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]
