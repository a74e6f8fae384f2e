"""The relay's signatures before two judges that share nothing: dkimpy and go-msgauth; and both judges' own vectors.

go-msgauth runs as a small Go program, built once from its pinned module (`dev/toolchain/dkimverify`). dkimpy's test
data is only in its source distribution, which pip fetches by hash into the cache folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import dkim
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from malote_dev import gotoolchain, sdist
from malote_dev.progress import Progress
from malote_dev.toolchain import Toolchain, cache_directory, modules_directory
from malote_relay.signing import canonical
from malote_relay.signing.keys import SigningKey
from malote_relay.signing.signer import Signer, signature_fields

RSA_KEY = rsa.generate_private_key(65537, 2048)
ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
BOTH = (SigningKey("r1", RSA_KEY), SigningKey("e1", ED25519_KEY))
_DER = RSA_KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
RECORDS = {
    "r1._domainkey.acme.example": "v=DKIM1; k=rsa; p=" + base64.b64encode(_DER).decode(),
    "e1._domainkey.acme.example": "v=DKIM1; k=ed25519; p="
    + base64.b64encode(ED25519_KEY.public_key().public_bytes_raw()).decode(),
}
FROM = b"From: Ana <ana@acme.example>\r\n"
PLAIN = FROM + b"To: bia@there.example\r\nSubject: hello\r\nDate: Mon, 1 Jun 2026 10:00:00 +0000\r\n"

MESSAGES = {
    "plain": PLAIN + b"\r\nHello\r\n",
    "no-body-at-all": PLAIN + b"\r\n",
    "body-of-one-empty-line": PLAIN + b"\r\n\r\n",
    "body-of-empty-lines": PLAIN + b"\r\n" + b"\r\n" * 7,
    "no-crlf-at-the-end": PLAIN + b"\r\nHello\r\nthere",
    "trailing-blank-lines": PLAIN + b"\r\nHello\r\n\r\n \t\r\n\r\n",
    "trailing-white-space": PLAIN + b"\r\nHello \t \r\n  indented\t\r\n a  b\t\tc\r\n",
    "eight-bit": PLAIN + "Content-Type: text/plain; charset=utf-8\r\n\r\nOlá, ação! ü 漢字\r\n".encode(),
    "eight-bit-header": PLAIN.replace(b"hello", "Olá".encode()) + b"\r\nHello\r\n",
    "latin-1": PLAIN + b"\r\nOl\xe1, a\xe7\xe3o\r\n",
    "folded": FROM
    + b"To: bia@there.example,\r\n\tcaio@there.example,\r\n   duda@there.example\r\n"
    + b"Subject:\r\n  begins on\r\n\t the next line \r\n"
    + b"References: <1@acme.example>\r\n\t<2@acme.example>\r\n\r\nHello\r\n",
    "white-space-in-names": b"From : ana@acme.example\r\nSUBJECT \t: \t a   b \r\n\r\nHello\r\n",
    "empty-fields": FROM + b"Subject:\r\nTo: \r\nCc:\t\r\n\r\nHello\r\n",
    "two-of-a-name": FROM
    + b"To: one@there.example\r\nTo: two@there.example\r\nCc: three@there.example\r\n\r\nHello\r\n",
    "three-references": FROM + b"References: <1@x>\r\nReferences: <2@x>\r\nReferences: <3@x>\r\n\r\nHello\r\n",
    "bulk": PLAIN
    + b"List-Unsubscribe: <https://acme.example/u>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    + b"\r\nHello\r\n",
    "dots": PLAIN + b"\r\n.\r\n..\r\n.leading\r\n",
    "long-lines": PLAIN + b"\r\n" + b"x" * 990 + b"\r\n" + b"y " * 490 + b"\r\n",
    "signed-before": b"DKIM-Signature: v=1; a=rsa-sha256; d=other.example; s=x; h=from; bh=AAAA; b=AAAA\r\n"
    + PLAIN
    + b"\r\nHello\r\n",
}
"""Messages with what signers and verifiers most often see differently."""

UNREADABLE_TO_DKIMPY = {"white-space-in-names"}
"""RFC 5322's obsolete syntax, which it does not read at all."""


def go_verdicts(messages: Sequence[bytes], records: dict[str, str]) -> list[list[str]]:
    """For each message what go-msgauth says of each signature; "" where it is valid."""
    program = Toolchain.find(["dkim-verify"])["dkim-verify"]
    question = {"records": records, "messages": [base64.b64encode(message).decode() for message in messages]}
    done = subprocess.run(
        [program], input=json.dumps(question), capture_output=True, text=True, timeout=60, check=True
    )
    verdicts: list[list[str]] = json.loads(done.stdout)
    return verdicts


def dkimpy_accepts(message: bytes, number: int = 0) -> bool:
    return bool(dkim.DKIM(message).verify(idx=number, dnsfunc=lambda name, timeout=5: RECORDS[name.decode()[:-1]]))


def signed(message: bytes, keys: Sequence[SigningKey] = BOTH) -> bytes:
    return signature_fields("acme.example", keys, message, int(time.time())) + message


def own(verdicts: list[str], count: int) -> list[str]:
    """The verdicts on our signatures, which stand first."""
    return verdicts[:count]


def test_both_signatures_of_any_message_are_valid_to_the_second_judge() -> None:
    verdicts = go_verdicts([signed(message) for message in MESSAGES.values()], RECORDS)
    found = {name: own(verdict, 2) for name, verdict in zip(MESSAGES, verdicts, strict=True)}
    assert found == {name: ["", ""] for name in MESSAGES}


@pytest.mark.parametrize("name", sorted(MESSAGES.keys() - UNREADABLE_TO_DKIMPY))
def test_the_rsa_signature_of_any_message_is_valid_to_dkimpy(name: str) -> None:
    assert dkimpy_accepts(signed(MESSAGES[name]))


def test_one_key_alone_signs_once() -> None:
    for key in BOTH:
        assert go_verdicts([signed(MESSAGES["plain"], [key])], RECORDS) == [[""]]


async def test_a_large_message_is_signed_from_its_file(tmp_path: Path) -> None:
    body = b"".join(b"line %d of many, with  spaces \t and more\r\n" % number for number in range(300_000))
    message = MESSAGES["folded"].removesuffix(b"Hello\r\n") + body + b"\r\n\r\nthe end without a line end"
    path = tmp_path / "message"
    path.write_bytes(message)
    fields = await Signer({"acme.example": BOTH}).sign("acme.example", path)
    assert len(message) > 12_000_000
    assert go_verdicts([fields + message], RECORDS) == [["", ""]]
    assert dkimpy_accepts(fields + message)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"Hello", b"Hullo"),
        (b"Subject: hello", b"Subject: other"),
        (b"ana@acme.example", b"eva@acme.example"),
        (b"Date:", b"From: eva@acme.example\r\nDate:"),
        (b"Date:", b"To: more@there.example\r\nDate:"),
        (b"Date:", b"Subject: another\r\nDate:"),
        (b"Date:", b"Reply-To: eva@there.example\r\nDate:"),
        (b"Hello\r\n", b"Hello\r\nmore\r\n"),
    ],
)
def test_what_was_changed_or_added_is_seen_by_the_second_judge(old: bytes, new: bytes) -> None:
    message = signed(MESSAGES["plain"])
    assert old in message
    (verdicts,) = go_verdicts([message.replace(old, new)], RECORDS)
    assert len(verdicts) == 2
    assert all(verdicts)


def test_what_hosts_on_the_way_may_do_is_forgiven_by_the_second_judge() -> None:
    message = signed(MESSAGES["trailing-white-space"])
    changed = message.replace(b"Hello \t \r\n", b"Hello\r\n").replace(b"Subject: hello", b"subject:   hello ")
    assert changed != message
    assert go_verdicts([b"Received: from there\r\n" + changed], RECORDS) == [["", ""]]


# ---- The judges' own vectors, through our canonical forms ----


def dkimpy_data() -> Path:
    try:
        root = sdist.fetch("dkimpy", "1.1.8", "b5f60fb47bbf5d8d762f134bcea0c388eba6b498342a682a21f1686545094b77")
    except sdist.SdistUnavailable as error:
        pytest.skip(f"dkimpy's test data is neither in the cache nor to be had: {error}")
    return root / "dkim" / "tests"


def crlf(text: bytes) -> bytes:
    return re.sub(rb"\r?\n", b"\r\n", text)


def holds(message: bytes, record: str) -> bool:
    """Whether the first signature is valid (RFC 6376 section 6.1.3), by our canonical forms; relaxed/relaxed only."""
    header, _, body = message.partition(b"\r\n\r\n")
    fields = canonical.split_fields(header)
    place = next(place for place, (name, _) in enumerate(fields) if name.lower() == b"dkim-signature")
    written = fields[place][1]
    tags = dict(re.sub(rb"\s+", b"", part).partition(b"=")[::2] for part in written.split(b";") if part.strip())
    assert tags[b"c"] == b"relaxed/relaxed"
    left = [field for number, field in enumerate(fields) if number != place]
    text = b""
    for name in tags[b"h"].lower().split(b":"):
        found = next((field for field in reversed(left) if field[0].strip().lower() == name), None)
        if found:
            left.remove(found)
            text += canonical.header_field(*found)
    text += b"dkim-signature:" + canonical.field_value(re.sub(rb"(;\s*b=)[^;]*", rb"\1", written))
    key = base64.b64decode(re.search(r"p=([^;\s]+)", record)[1])  # type: ignore[index]
    signature = base64.b64decode(tags[b"b"])
    try:
        if tags[b"a"] == b"ed25519-sha256":
            ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, hashlib.sha256(text).digest())
        else:
            public = load_der_public_key(key)
            assert isinstance(public, rsa.RSAPublicKey)
            public.verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return base64.b64encode(canonical.body_hash(body)) == tags[b"bh"]


def test_the_relaxed_messages_among_dkimpys_vectors_hold() -> None:
    """A real one of Gmail's (RSA), folded in the oddest legal way, and one of Exim's (Ed25519)."""
    tests = dkimpy_data()
    source = (tests / "test_dkim.py").read_text("utf-8").replace("\\\n", "")
    gmail = re.search(r"'20120113\._domainkey\.gmail\.com\.': \"\"\"(.*?)\"\"\"", source, re.DOTALL)
    assert gmail is not None
    folded = crlf((tests / "data/test2.message").read_bytes())
    assert holds(folded, gmail[1])
    assert not holds(folded.replace(b"test mail", b"test  mail!"), gmail[1])
    assert not holds(folded.replace(b"Hello, DKIM", b"Hello, Dkim"), gmail[1])
    exim = crlf((tests / "data/ed25519test2.msg").read_bytes())
    record = (tests / "data/eximtest.dns").read_text("ascii")
    assert holds(exim, record)
    assert not holds(exim.replace(b"content", b"contents"), record)


def test_dkimpys_messages_signed_by_us_are_valid_to_both_judges() -> None:
    data = dkimpy_data() / "data"
    messages = {
        path.name: crlf(path.read_bytes())
        for path in sorted((*data.glob("*.message"), *data.glob("*.msg"), *data.glob("*.mbox")))
        if path.name not in {"test_nofrom.message", "test_extra.message"}  # no message, by what they are to test
    }
    assert len(messages) >= 8
    done = {name: signed(message) for name, message in messages.items()}
    verdicts = go_verdicts(list(done.values()), RECORDS)
    assert {name: own(said, 2) for name, said in zip(done, verdicts, strict=True)} == {
        name: ["", ""] for name in done
    }
    assert all(dkimpy_accepts(message) for message in done.values())


@pytest.fixture(scope="module")
def go_tests() -> Path:
    """The folder of go-msgauth's own tests."""
    try:
        with Progress() as progress:
            go = gotoolchain.find((1, 24), cache_directory(), os.environ, progress)
        command = [str(go.program), "mod", "download", "-json", "github.com/emersion/go-msgauth"]
        done = subprocess.run(
            command,
            cwd=modules_directory() / "dkimverify",
            env={**os.environ, **go.environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    except (gotoolchain.GoError, subprocess.SubprocessError) as error:
        pytest.skip(f"go-msgauth's tests are neither in Go's module cache nor to be had: {error}")
    return Path(json.loads(done.stdout)["Dir"]) / "dkim"


def table(source: str, name: str) -> list[tuple[bytes, bytes]]:
    """Pairs (original, canonical) of one of its tables; Go's string literals here are JSON's as well."""
    found = re.search(rf"^var {name} = .*?^\}}$", source, re.DOTALL | re.MULTILINE)
    assert found is not None
    texts = [json.loads(literal).encode() for literal in re.findall(r'"(?:[^"\\]|\\.)*"', found[0])]
    return list(zip(texts[::2], texts[1::2], strict=True))


def test_go_msgauths_canonical_forms_are_ours(go_tests: Path) -> None:
    source = (go_tests / "canonical_test.go").read_text("utf-8")
    headers, bodies = table(source, "relaxedCanonicalizerHeaderTests"), table(source, "relaxedCanonicalizerBodyTests")
    assert len(headers) >= 4
    assert len(bodies) >= 10
    for original, expected in headers:
        (field,) = canonical.split_fields(original.removesuffix(b"\r\n"))
        assert canonical.header_field(*field) == expected
    for original, expected in bodies:
        assert canonical.body_hash(original) == hashlib.sha256(expected).digest()


def test_go_msgauths_relaxed_message_holds(go_tests: Path) -> None:
    """It is RFC 8463's, its Ed25519 signature first."""
    source = (go_tests / "verify_test.go").read_text("utf-8")
    found = re.search(r"const verifiedEd25519MailString = `(.*?)`", source, re.DOTALL)
    assert found is not None
    message = crlf(found[1].encode())
    record = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    assert holds(message, record)
    assert not holds(message.replace(b"hungry", b"thirsty"), record)
