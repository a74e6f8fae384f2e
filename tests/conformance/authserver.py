"""One account that Postfix asks about: the server side of Dovecot's authentication protocol, PLAIN and LOGIN."""

from __future__ import annotations

import base64
import binascii
import socketserver
import threading

_HELLO = b"VERSION\t1\t1\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t%b\nDONE\n" % (
    b"0" * 32
)
_PROMPTS = (b"Username:", b"Password:")


class AuthServer:
    """Answers on a port of loopback from the start until `stop`."""

    def __init__(self, user: str, password: str) -> None:
        right = user.encode(), password.encode()

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.wfile.write(_HELLO)
                exchanges: dict[bytes, _Exchange] = {}
                for line in self.rfile:
                    verb, *fields = line.rstrip(b"\n").split(b"\t")
                    if verb == b"AUTH":
                        exchanges[fields[0]] = _Exchange(fields[1])
                        response = next((one[5:] for one in fields if one.startswith(b"resp=")), None)
                        self._go_on(exchanges, fields[0], response)
                    elif verb == b"CONT" and fields[0] in exchanges:
                        self._go_on(exchanges, fields[0], fields[1] if len(fields) > 1 else b"")

            def _go_on(self, exchanges: dict[bytes, _Exchange], number: bytes, response: bytes | None) -> None:
                try:
                    challenge = exchanges[number].take(response)
                except (binascii.Error, ValueError):
                    self.wfile.write(b"FAIL\t%b\treason=bad response\n" % number)
                    return
                if challenge is not None:
                    self.wfile.write(b"CONT\t%b\t%b\n" % (number, base64.b64encode(challenge)))
                elif exchanges.pop(number).said == right:
                    self.wfile.write(b"OK\t%b\tuser=%b\n" % (number, right[0]))
                else:
                    self.wfile.write(b"FAIL\t%b\n" % number)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Exchange:
    def __init__(self, mechanism: bytes) -> None:
        self._plain = mechanism.upper() == b"PLAIN"
        self.said: tuple[bytes, ...] = ()

    def take(self, response: bytes | None) -> bytes | None:
        """Take a response (None: there was no initial one); the next challenge, None when all was said.

        Raises ValueError.
        """
        if response is None:
            return b"" if self._plain else _PROMPTS[0]
        octets = base64.b64decode(response, validate=True)
        if self._plain:
            acting_for, user, password = octets.split(b"\0")
            if acting_for not in {b"", user}:
                raise ValueError("nobody acts for others here")
            self.said = user, password
            return None
        self.said += (octets,)
        return _PROMPTS[1] if len(self.said) < 2 else None
