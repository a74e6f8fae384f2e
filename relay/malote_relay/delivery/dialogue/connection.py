"""The outgoing SMTP dialogue: one session with one remote server, and transactions on it.

Commands are sent in groups where the server offers PIPELINING (RFC 2920). What TLS there must be was decided before
(`tls.security`); where it is required, a session without it is none. Time limits follow RFC 5321 section 4.5.3.2,
except for connecting.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

from malote_relay.delivery.answers.classify import classify
from malote_relay.delivery.content import Content
from malote_relay.delivery.dialogue.envelope import Envelope
from malote_relay.delivery.dialogue.fitness import (
    FORBIDDEN,
    FORBIDDEN_REPLY,
    in_seven_bits,
    lacking,
    unfit,
    unfit_recipient,
)
from malote_relay.delivery.dialogue.login import sign_in
from malote_relay.delivery.dialogue.wire import SessionFailed, Wire
from malote_relay.delivery.parameters import mail_parameters, rcpt_parameters
from malote_relay.delivery.peer import Identity, Peer, Timeouts
from malote_relay.delivery.reach import open_socket
from malote_relay.delivery.reply import About, Answer, Failure, Reply
from malote_relay.delivery.tls.handshake import Handshake, TlsFailed, begin, trouble_of
from malote_relay.delivery.tls.results import ResultType, Trouble
from malote_relay.delivery.tls.security import SMART_HOST

_WANTS_LOGIN = frozenset({530, 534, 535, 538})
_TAKES_NO_MAIL = frozenset({521, 556})
_NOT_ANOTHER = frozenset({421, 503})
"""To MAIL, on a session that has had a transaction: it wants no other, or has lost step. A new one may be had."""


class Session:
    """A greeted session; `open_session` makes one. Transactions go one after another, by one caller at a time."""

    def __init__(self, wire: Wire, timeouts: Timeouts):
        self._wire = wire
        self._timeouts = timeouts
        self._extensions: dict[str, str] = {}
        self._needs_reset = False
        self._ended = False
        self._farewell: Reply | None = None
        """The 421 with which it announced that it closes."""
        self.content_sent = False
        """Whether the last transaction got as far as its content: the remote may then have the message."""
        self.peer = wire.peer
        self.tls = ""
        """What was agreed on and what of it was verified; "" in clear."""
        self.tls_trouble: Trouble | None = None
        """Why it is in clear though TLS was asked for."""
        self.transactions = 0

    @property
    def usable(self) -> bool:
        """Whether another transaction may be tried on it."""
        return not self._ended and not self._wire.lost and not self._wire.replies

    @property
    def _is_smart_host(self) -> bool:
        """What it says of itself, or of us, is its operator's and ours to mend: nothing bounces for it."""
        return self.peer.security.why == SMART_HOST

    @property
    def notifies(self) -> bool:
        """Whether the remote takes over the notifying of senders (DSN, RFC 3461)."""
        return "DSN" in self._extensions

    def lacks(self, envelope: Envelope) -> str:
        """The extension that the message needs and the remote does not offer; "" for none."""
        return lacking(envelope, self._extensions)

    def wants_seven_bits(self, envelope: Envelope) -> bool:
        """Whether all that stands in the way is that the message is not in 7 bits."""
        return in_seven_bits(envelope, self._extensions, self.peer)

    @property
    def local_address(self) -> str:
        """The address it goes out from, as far as this machine knows."""
        place = self._wire.transport.get_extra_info("sockname")
        return str(place[0]) if place else ""

    async def greet(self, identity: Identity, tls: Handshake | None) -> None:
        """Greeting, EHLO (or HELO), TLS as asked for, and the login where there is one. Raises SessionFailed."""
        if tls is not None and tls.security.implicit:
            await self._secure(tls)
        reply = await self._wire.reply(self._timeouts.greeting, "greeting")
        if reply.code != 220:
            raise self._refused(reply, "greeting")
        await self._hello(identity.helo_name)
        if tls is not None and not tls.security.implicit:
            await self._starttls(identity.helo_name, tls)
        if identity.login is not None and self._is_smart_host:
            await self._sign_in(identity)

    async def _starttls(self, name: str, tls: Handshake) -> None:
        reply = None
        if "STARTTLS" in self._extensions:
            reply = await self._command("STARTTLS", "STARTTLS")
            if reply.code == 421:
                raise self._refused(reply, "STARTTLS")
        if reply is None or reply.code != 220:
            said = f"answers STARTTLS with {reply}" if reply else "offers no STARTTLS"
            trouble = Trouble(ResultType.STARTTLS_NOT_SUPPORTED, said)
            if tls.security.required:
                raise self._insecure(trouble, tls)
            self.tls_trouble = trouble
            return  # RFC 3207 section 4: it goes on without.
        if not self._wire.parser.idle or self._wire.replies:
            # Clear text sent ahead of the handshake could pose as what comes after it (CVE-2011-0411).
            raise self._insecure(Trouble(ResultType.VALIDATION_FAILURE, "it spoke before the TLS handshake"), tls)
        await self._secure(tls)
        try:
            await self._hello(name)
        except SessionFailed as failed:
            if self._wire.broken is None or failed.failure.bounce_class != "connection":
                raise  # A reply, or silence, has nothing to do with TLS: it means what it would mean without.
            # With TLS 1.3 a server's refusal may come only after our side of the handshake is done.
            raise SessionFailed(failed.failure, tls=trouble_of(self._wire.broken)) from failed

    async def _secure(self, tls: Handshake) -> None:
        try:
            self._wire.transport, self.tls = await begin(self._wire.transport, self._wire, tls, self._timeouts.tls)
        except TlsFailed as failed:
            raise self._insecure(failed.trouble, tls) from failed

    def _insecure(self, trouble: Trouble, tls: Handshake) -> SessionFailed:
        why = f"; {tls.security.why} requires TLS" if tls.security.required else ""
        return SessionFailed(Failure(f"451 4.7.5 no TLS with {self.peer}: {trouble.words}{why}", "tls"), tls=trouble)

    async def _sign_in(self, identity: Identity) -> None:
        """Whatever is wrong with it is the operator's to mend: mail waits meanwhile."""
        assert identity.login is not None  # noqa: S101  # asked by the only caller
        if not self.tls:
            words = f"451 4.7.11 {self.peer} has no TLS, and the login is not sent without"
            raise SessionFailed(Failure(words, "tls"))
        if not identity.login.password:
            words = f"451 4.7.8 the password for {self.peer} cannot be read: the relay's configuration error says why"
            raise SessionFailed(Failure(words, "auth"))
        reply = await sign_in(self._command, self._extensions, identity.login)
        if reply is None:
            words = f"451 4.7.0 {self.peer} offers no way to sign in that we have (PLAIN, LOGIN)"
            raise SessionFailed(Failure(words, "auth"))
        if reply.code != 235:
            raise SessionFailed(Failure(f"451 4.7.8 {self.peer} refuses our login: {reply}", "auth"))

    async def _hello(self, name: str) -> None:
        reply = await self._command(f"EHLO {name}", "EHLO")
        if reply.permanent:
            # RFC 5321 section 4.1.4: an older server, or one that wants to be asked simply.
            self._extensions = {}
            try:
                reply = await self._command(f"HELO {name}", "HELO")
            except SessionFailed:
                # It wanted no more of us at all: what it said tells why, that it hung up does not.
                raise self._refused(reply, "EHLO") from None
        else:
            words = [line.partition(" ") for line in reply.lines[1:]]
            self._extensions = {keyword.upper(): parameters for keyword, _, parameters in words}
        if reply.code != 250:
            raise self._refused(reply, "EHLO")
        if reply.lines[0].partition(" ")[0].lower() == name.lower():
            code = "451 4.4.6" if self._is_smart_host else "554 5.4.6"
            loop = f"{code} {self.peer} calls itself {name}, as this relay does: a loop"
            raise SessionFailed(Failure(loop, "routing", permanent=not self._is_smart_host))

    async def _command(self, line: str, stage: str) -> Reply:
        self._wire.write(f"{line}\r\n".encode(), stage)
        return await self._wire.reply(self._timeouts.command, stage)

    def _refused(self, reply: Reply, stage: str) -> SessionFailed:
        """No session, by its own word. For good only where the word says that it takes no mail at all (RFC 7504).

        Any other refusal is about us, today: it would bounce all that is queued for it, so mail goes to the next host
        and then waits, as with other mailers.
        """
        words = f"{reply} ({self.peer}, {stage})"
        permanent = reply.code in _TAKES_NO_MAIL and not self._is_smart_host
        return SessionFailed(Failure(words, "", permanent=permanent, said=str(reply)), host=str(self.peer))

    async def deliver(self, envelope: Envelope) -> list[Answer]:
        """Run one transaction: an answer for each recipient, in their order. Raises only what is not the remote's.

        A session lost between the final dot and its reply counts as a temporary failure: the message may then
        arrive twice, but is never lost (RFC 5321 section 4.2.5, RFC 1047).
        """
        self.content_sent = False
        if envelope.smtputf8 and "SMTPUTF8" not in self._extensions:
            envelope = envelope.in_ascii()
            # In a thread: here it looks into the headers, which may have to be read.
            refusal = await asyncio.to_thread(unfit, envelope, self._extensions, self.peer)
        else:
            refusal = unfit(envelope, self._extensions, self.peer)
        if refusal is not None:
            return [refusal] * len(envelope.recipients)
        unfit_ones = {
            place: no
            for place, one in enumerate(envelope.recipients)
            if (no := unfit_recipient(one, self._extensions, self.peer))
        }
        if unfit_ones:
            # Each recipient has an answer of its own: what one needs must not cost the others their mail.
            fit = [place for place in range(len(envelope.recipients)) if place not in unfit_ones]
            others = iter(await self.deliver(envelope.part(fit)) if fit else ())
            return [unfit_ones.get(place) or next(others) for place in range(len(envelope.recipients))]
        answers: list[Answer | None] = [None] * len(envelope.recipients)
        heard = False
        rest: Answer | None = None
        try:
            if "PIPELINING" in self._extensions:
                self._send_commands(envelope)
            mail = await self._mail(envelope)
            heard = True
            if mail.code in _WANTS_LOGIN and self._is_smart_host:
                # The operator's to mend, like a login that is refused: nothing bounces for it.
                raise SessionFailed(Failure(f"451 4.7.0 {self.peer} wants another login: {mail}", "auth"))
            if mail.code in _NOT_ANOTHER and self.transactions:
                raise SessionFailed(Failure(f"{mail}", "connection", stale=True, said=f"{mail}"))
            await self._rest(envelope, mail, answers)
        except SessionFailed as failed:
            stale = failed.failure.stale or (not heard and self.transactions > 0)
            rest = dataclasses.replace(failed.failure, permanent=False, stale=stale)
            if self._farewell is not None and not self.content_sent:
                rest = self._farewell
            self.abort()
        except BaseException:
            self.abort()
            raise
        finally:
            self.transactions += 1
        unanswered = rest or Failure("451 4.3.0 the transaction ended without an answer", "other")
        answered = [unanswered if answer is None else answer for answer in answers]
        if not self.tls and "STARTTLS" in self._extensions:
            return [self._unless_for_tls(answer) for answer in answered]
        return answered

    def _unless_for_tls(self, answer: Answer) -> Answer:
        """In clear because TLS failed: a refusal for the want of it is about this session, not about the mail."""
        if not answer.permanent or classify(answer).bounce_class != "tls":
            return answer
        return Failure(f"451 4.7.5 no TLS could be had with {self.peer}, which wants it: {answer}", "tls")

    async def _mail(self, envelope: Envelope) -> Reply:
        seconds = self._timeouts.command
        if "PIPELINING" not in self._extensions:
            if self._needs_reset:
                self._reset(await self._command("RSET", "RSET"))
            return await self._command(self._mail_command(envelope), "MAIL")
        if self._needs_reset:
            self._reset(await self._wire.reply(seconds, "RSET"))
        return await self._wire.reply(seconds, "MAIL")

    def _reset(self, reply: Reply) -> None:
        """What was begun before would have its MAIL refused."""
        if not reply.accepted:
            words = f"451 4.5.0 {self.peer} answers RSET with {reply}"
            raise SessionFailed(Failure(words, "connection", stale=True))
        self._needs_reset = False

    async def _rest(self, envelope: Envelope, mail: Reply, answers: list[Answer | None]) -> None:
        pipelined = "PIPELINING" in self._extensions
        if mail.intermediate:
            raise self._out_of_step("MAIL", mail)
        if not mail.accepted:
            # It answers for everyone, whatever becomes of the session while the replies to the rest are read.
            self._note(dataclasses.replace(mail, about=About.SENDER), answers)
            if not pipelined:
                return
        accepted = 0
        for place, recipient in enumerate(envelope.recipients):
            if pipelined:
                reply = await self._wire.reply(self._timeouts.command, "RCPT")
            else:
                reply = await self._command(self._rcpt_command(envelope, place, recipient), "RCPT")
            if reply.intermediate:
                raise self._out_of_step("RCPT", reply)
            if mail.accepted and reply.accepted:
                accepted += 1
            elif mail.accepted:
                answers[place] = reply
            if reply.code == 421:
                self._ended, self._farewell = True, reply
        if pipelined or accepted:
            if not pipelined:
                self._wire.write(b"DATA\r\n", "DATA")
            data = await self._wire.reply(self._timeouts.data, "DATA")
        else:
            data = Reply(503)
        if data.accepted or (data.intermediate and data.code != 354):
            raise self._out_of_step("DATA", data)
        if data.code != 354:
            self._needs_reset = True
            self._note(data, answers)
        elif not accepted:
            # RFC 2920 section 3.1: DATA was let in though nobody is left; end it empty.
            self._expect_silence()
            self._wire.write(b".\r\n", "end of data")
            await self._wire.reply(self._timeouts.final, "end of data")
        else:
            self._expect_silence()
            self.content_sent = True
            whole = await self._send_content(envelope.content)
            reply = await self._wire.reply(self._timeouts.final, "end of data")
            if reply.intermediate or (reply.accepted and (not whole or self._wire.spoke_early)):
                raise self._out_of_step("what it has not all got" if reply.accepted else "the end of data", reply)
            self._note(reply, answers)

    def _expect_silence(self) -> None:
        """After 354 it is our turn: what was said already is no answer to what is still to come."""
        if self._wire.replies:
            reply = self._wire.replies.popleft()
            if reply.code == 421:
                self._farewell = reply
            raise self._out_of_step("content that it has not got yet", reply)

    def _out_of_step(self, stage: str, reply: Reply) -> SessionFailed:
        """Its replies do not belong to our commands (any more): nothing it says now can be taken for a delivery."""
        return SessionFailed(Failure(f"451 4.5.0 {self.peer} answers {stage} with {reply}", "system"))

    def _note(self, reply: Reply, answers: list[Answer | None]) -> None:
        """`reply` is the answer for whoever has none yet."""
        self._ended = self._ended or reply.code == 421
        places = [place for place, answer in enumerate(answers) if answer is None]
        if not reply.accepted and len(places) > 1 and reply.about is About.RECIPIENT:
            reply = dataclasses.replace(reply, about=About.MESSAGE)
        for place in places:
            answers[place] = reply

    def _send_commands(self, envelope: Envelope) -> None:
        lines = ["RSET"] if self._needs_reset else []
        lines.append(self._mail_command(envelope))
        lines += [self._rcpt_command(envelope, *one) for one in enumerate(envelope.recipients)]
        lines += ["DATA", ""]
        self._wire.write("\r\n".join(lines).encode(), "MAIL")

    async def _send_content(self, content: Content) -> bool:
        """Send it; whether all of it was, before anything was said to it."""
        stage = "content"
        if (whole := content.whole()) is not None:
            self._wire.write(whole, stage)
            return True
        async for block in content.blocks():
            if self._wire.replies:
                # It has heard enough: a refusal is the answer, and the rest, with the final dot, is not sent.
                self._ended = True
                return False
            self._wire.write(block, stage)
            await self._wire.drained(self._timeouts.block, stage)
        return True

    def _mail_command(self, envelope: Envelope) -> str:
        line = f"MAIL FROM:<{envelope.reverse_path}>"
        if "SIZE" in self._extensions:
            line += f" SIZE={envelope.size}"
        if envelope.eight_bit and "8BITMIME" in self._extensions:
            line += " BODY=8BITMIME"
        if envelope.smtputf8 and "SMTPUTF8" in self._extensions:
            line += " SMTPUTF8"
        if envelope.dsn and self.notifies:
            line += mail_parameters(envelope.dsn[0])
        return line

    def _rcpt_command(self, envelope: Envelope, place: int, recipient: str) -> str:
        line = f"RCPT TO:<{recipient}>"
        if envelope.dsn and self.notifies:
            line += rcpt_parameters(envelope.dsn[place], recipient)
        return line

    async def ask(self, recipient: str) -> tuple[Reply, Reply | None]:
        """Ask whether `recipient` would be taken, from the null sender, and go no further: a call-out.

        The replies to MAIL and to RCPT; the latter is None when MAIL was refused, or the server cannot be told the
        address: the former says so then. Raises SessionFailed.
        """
        if FORBIDDEN.search(recipient):
            return FORBIDDEN_REPLY, None
        utf8 = "" if recipient.isascii() else " SMTPUTF8"
        if utf8 and "SMTPUTF8" not in self._extensions:
            return Reply(553, ("5.6.7 it takes no internationalised addresses (SMTPUTF8)",)), None
        mail = await self._command(f"MAIL FROM:<>{utf8}", "MAIL")
        if not mail.accepted:
            return mail, None
        return mail, await self._command(f"RCPT TO:<{recipient}>", "RCPT")

    async def quit(self) -> None:
        """Say QUIT, wait a moment for the answer, close."""
        if self.usable:
            with contextlib.suppress(SessionFailed):
                self._wire.write(b"QUIT\r\n", "QUIT")
                await self._wire.reply(self._timeouts.quit, "QUIT")
        self._ended = True
        self._wire.transport.close()

    def abort(self) -> None:
        """Drop the connection at once."""
        self._ended = True
        self._wire.transport.abort()


async def open_session(peer: Peer, identity: Identity, timeouts: Timeouts, tls: Handshake | None = None) -> Session:
    """Connect and greet. Raises SessionFailed: its `tls` says that only TLS was in the way."""
    try:
        async with asyncio.timeout(timeouts.connect):
            connection = await open_socket(peer.address, peer.port, identity)
            _, wire = await asyncio.get_running_loop().create_connection(lambda: Wire(peer), sock=connection)
    except TimeoutError as error:
        words = f"451 4.4.1 no connection to {peer} within {timeouts.connect:g} s"
        raise SessionFailed(Failure(words, "timeout")) from error
    except OSError as error:
        words = f"451 4.4.1 no connection to {peer}: {error.strerror or error}"
        raise SessionFailed(Failure(words, "connection")) from error
    session = Session(wire, timeouts)
    try:
        await session.greet(identity, tls)
    except BaseException:
        session.abort()
        raise
    return session
