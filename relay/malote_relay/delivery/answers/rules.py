"""Rules about replies, kept as data: read from TOML, checked, and applied in microseconds.

A rule names conditions (the MX host's provider, as in `providers`; reply codes, enhanced codes, temporary or not,
phrases), all of which must hold, and the class it gives. The first rule that fits decides.

Phrases are words, not regular expressions: both they and the reply are reduced to lower-case words without accents,
punctuation and mail addresses (an address called spam@ must not make a reply one about spam). In a phrase, ``(a|b)``
stands for either, ``(a|)`` for a or nothing, ``*`` for up to a few dozen characters of anything, and ``word*`` for
any word that begins so. Whole words are compared. The rules are indexed by their phrases' first words, so that a
reply is held against the few phrases that it could contain.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Final

import msgspec

from malote_relay.delivery.answers.providers import Providers, known
from malote_relay.delivery.reply import Reply

GAP: Final = 60
"""Characters of a reduced reply that a ``*`` may stand for."""

_ADDRESS = re.compile(r"[^\s<>:;,()\[\]]+@[\w-]+(?:\.[\w-]+)*")
_SEPARATORS = re.compile(r"[\W_]+")
_PHRASE = re.compile(r"(?:[^\W_A-Z]|[ ()|]|(?<=\w)\*|(?<=[ (])\*(?= ))+")
_GROUP = re.compile(r"\([^()]*\)")
_BEGUN = re.compile(r"(?<=\w)\*")
_BEGINNING = 3
_ENHANCED = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}|")
_IN_TEXT = re.compile(r"(?:#|\b[45][0-9]{2}[ -])([45])\.([0-9]{1,3}\.[0-9]{1,3})\b")
_BETWEEN = re.compile(r" ([45][0-9]{2})[ -](?:[45](?:\.[0-9]{1,3}){2} )?")


class BadRules(ValueError):
    """The data cannot be used; the message says which file, which rule and why."""


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``[[rules]]`` table. What is empty is not asked for.

    `enhanced` holds subject and detail ("1.1" of 5.1.1); "" in it stands for a reply without an enhanced code.
    `text` fits when one of its phrases does. `source` says where the rule comes from.
    """

    bounce_class: str = msgspec.field(name="class")
    provider: str = ""
    codes: tuple[int, ...] = ()
    enhanced: tuple[str, ...] = ()
    temporary: bool | None = None
    text: tuple[str, ...] = ()
    source: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    classes: dict[str, str]
    rules: tuple[Rule, ...]


def reduced(text: str) -> str:
    """The text as words with one space around each: lower case, no accents, punctuation or mail addresses."""
    if "@" in text:
        text = _ADDRESS.sub(" ", text)
    if not text.isascii():
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return _SEPARATORS.sub(" ", f" {text.lower()} ")


class _Phrase:
    """A phrase of one rule; compiled when a reply first contains a word that it may begin with."""

    __slots__ = ("_compiled", "_written", "rule")

    def __init__(self, rule: int, written: str) -> None:
        self.rule = rule
        self._written = written
        self._compiled: re.Pattern[str] | None = None

    def within(self, text: str) -> bool:
        """Whether a reduced text contains it."""
        if self._compiled is None:
            self._compiled = re.compile(pattern(self._written))
        return self._compiled.search(text) is not None


def pattern(phrase: str) -> str:
    """The regular expression that finds a phrase in a reduced text."""
    gaps = phrase.replace("(* |)", f"(.{{,{GAP}}} |)").replace(" * ", f"( .{{,{GAP}}}|) ")
    return f" {_BEGUN.sub('[^ ]*', gaps)} ".replace("(", "(?:")


def first_words(phrase: str) -> set[str]:
    """The words that a phrase can begin with, ``word*`` among them. Raises ValueError for what cannot be meant."""
    if not _PHRASE.fullmatch(phrase) or set(_GROUP.sub("", phrase)) & set("()|") or phrase.strip() != phrase:
        raise ValueError(f"{phrase!r}: write lower-case words without punctuation, (a|b), word* and * between words")
    words, open_ones = set(), [phrase]
    while open_ones:
        start, group, rest = open_ones.pop().lstrip().partition("(")
        word, space, _ = start.partition(" ")
        if group and not space:
            choices, _, rest = rest.partition(")")
            open_ones += [start + choice + rest for choice in choices.split("|")]
        elif len(word.strip("*")) < (_BEGINNING if "*" in word else 1):
            raise ValueError(f"{phrase!r} must begin with a word, or at least {_BEGINNING} letters of one")
        else:
            words.add(word)
    return words


class Rules:
    """Rules ready for use. `classes` gives the meaning of each class."""

    def __init__(self, classes: Mapping[str, str], providers: Providers, rules: Iterable[Rule]):
        self.classes = dict(classes)
        self.rules = tuple(rules)
        self._providers = providers
        self._by_word: dict[str, list[_Phrase]] = {}
        self._by_beginning: dict[str, list[tuple[str, _Phrase]]] = {}
        self._without_text: list[tuple[int, Rule]] = []
        for number, rule in enumerate(self.rules):
            try:
                self._add(number, rule)
            except ValueError as error:
                raise BadRules(f"rule {number + 1} (class {rule.bounce_class}): {error}") from error

    def _add(self, number: int, rule: Rule) -> None:
        if rule.bounce_class not in self.classes:
            raise ValueError(f"no such class; there are {', '.join(self.classes)}")
        if rule.provider and rule.provider not in self._providers.by_name:
            known_ones = ", ".join(sorted(self._providers.by_name))
            raise ValueError(f"no such provider as {rule.provider!r}; there are {known_ones}")
        if not (rule.provider or rule.codes or rule.enhanced or rule.text or rule.temporary is not None):
            raise ValueError("it has no condition and would hide every rule after it")
        for code in rule.codes:
            if not 400 <= code <= 599:
                raise ValueError(f"{code} is no code of a refusal")
        for detail in rule.enhanced:
            if not _ENHANCED.fullmatch(detail):
                raise ValueError(f'write subject and detail of an enhanced code, like "1.1", not {detail!r}')
        if not rule.text:
            self._without_text.append((number, rule))
        for written in rule.text:
            phrase = _Phrase(number, written)
            for word in first_words(written):
                if word.endswith("*"):
                    self._by_beginning.setdefault(word[:_BEGINNING], []).append((word.removesuffix("*"), phrase))
                else:
                    self._by_word.setdefault(word, []).append(phrase)

    def find(self, reply: Reply, host: str = "") -> Rule | None:
        """The first rule that fits a reply of `host`, whose name may carry an address: ``mx.example[::1]``."""
        provider = self._providers.of(host)
        said = str(reply)
        enhanced = reply.enhanced[2:]
        if not enhanced and (found := _IN_TEXT.search(said, 4)):
            # qmail's way, at the end: "sorry, no mailbox here by that name. (#5.1.1)"; or in a later line.
            enhanced = found[2] if int(found[1]) == reply.code // 100 else ""
        if f" {reply.code}-" in said:
            # Logs and reports write the lines of a reply in one, with what each began with.
            said = _BETWEEN.sub(lambda found: " " if int(found[1]) == reply.code else found[0], said)
        text = reduced(said[4:])
        best = len(self.rules)
        for number, rule in self._without_text:
            if _holds(rule, reply, provider, enhanced):
                best = number
                break
        for phrase in self._possible(text):
            if phrase.rule >= best:
                break
            if _holds(self.rules[phrase.rule], reply, provider, enhanced) and phrase.within(text):
                best = phrase.rule
        return self.rules[best] if best < len(self.rules) else None

    def _possible(self, text: str) -> list[_Phrase]:
        """The phrases that the text has a first word of, in the order of their rules."""
        found: list[_Phrase] = []
        for word in set(text.split()):
            if word in self._by_word:
                found += self._by_word[word]
            for beginning, phrase in self._by_beginning.get(word[:_BEGINNING], ()):
                if word.startswith(beginning):
                    found.append(phrase)
        found.sort(key=_order)
        return found


_order = attrgetter("rule")


def _holds(rule: Rule, reply: Reply, provider: str, enhanced: str) -> bool:
    """Whether all conditions but the text hold."""
    return (
        (not rule.provider or rule.provider == provider)
        and (not rule.codes or reply.code in rule.codes)
        and (not rule.enhanced or enhanced in rule.enhanced)
        and (rule.temporary is None or rule.temporary != reply.permanent)
    )


def load(path: Path, providers: Providers | None = None) -> Rules:
    """Read a file of rules; about the `providers` we know unless others are given. Raises BadRules, OSError."""
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File)
        return Rules(found.classes, providers or known(), found.rules)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, BadRules) as error:
        raise BadRules(f"{path.name}: {error}") from error
