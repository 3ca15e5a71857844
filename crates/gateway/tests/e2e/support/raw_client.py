"""A client that writes whatever bytes a story wants, and reads the answers as strictly as RFC 6455 has them."""

import contextlib
import socket

from . import tokens
from .process import PATIENCE
from .requests import HANDSHAKE, bearer

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FIN = 0x80


def frame(first_byte, payload=b"", masked=True, length=None):
    """A client's frame. `first_byte` holds FIN, the reserved bits and the opcode; `length` is one to lie about."""
    return header(first_byte, len(payload) if length is None else length, masked) + (
        mask(payload, KEY) if masked else payload
    )


KEY = b"\x37\xfa\x21\x3d"  # the RFC's example


def header(first_byte, length, masked=True, form=None):
    """`form` is the number of bytes for the length (0, 2 or 8), where it is not to be the shortest."""
    if form is None:
        form = 0 if length < 126 else 2 if length < 65536 else 8
    short = {0: length, 2: 126, 8: 127}[form]
    extended = length.to_bytes(form, "big") if form else b""
    return bytes([first_byte, short | (0x80 if masked else 0)]) + extended + (KEY if masked else b"")


def mask(payload, key):
    return bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def text(message):
    return frame(FIN | TEXT, message.encode())


def close(code, reason=b""):
    return frame(FIN | CLOSE, code.to_bytes(2, "big") + reason)


def frames_in(heard):
    """(opcode, payload) of each frame that a server may send us: whole, unmasked, in its shortest form."""
    at = 0
    while at < len(heard):
        first, second = heard[at], heard[at + 1]
        assert first & 0x70 == 0 and first & FIN and second < 0x80, heard[at:at + 20]
        form = {126: 2, 127: 8}.get(second, 0)
        length = int.from_bytes(heard[at + 2:at + 2 + form], "big") if form else second
        assert form == (0 if length < 126 else 2 if length < 65536 else 8)
        at += 2 + form + length
        assert at <= len(heard), "the last frame is not whole"
        yield first & 0xF, heard[at - length:at]


def upgrade_head(where, headers=None, target="/v1/connect", version="HTTP/1.1"):
    """The bytes of an upgrade to `address:port`; `headers` is a list of pairs or a dict."""
    headers = headers if headers is not None else {**HANDSHAKE, **bearer(tokens.token())}
    pairs = headers.items() if isinstance(headers, dict) else headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in pairs)
    return f"GET {target} {version}\r\nHost: {where}\r\n{lines}\r\n".encode("latin-1")


class RawClient:
    """One TCP connection to `address:port`."""

    def __init__(self, where, receive_buffer=None):
        self.where = where
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        host, port = where.split(":")
        self.socket.connect((host, int(port)))

    def upgrade(self, **head):
        """Sends a good upgrade and reads its answer, and nothing behind it."""
        self.send(upgrade_head(self.where, **head))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self._some(1)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        return self

    def send(self, data, piece=None):
        """All at once, or `piece` bytes a write."""
        for at in range(0, len(data), piece or max(1, len(data))):
            self.socket.sendall(data[at:at + (piece or len(data))])

    def send_as_long_as_it_is_taken(self, chunk, times):
        """How many of the chunks the other side took before it was gone."""
        for sent in range(times):
            try:
                self.socket.sendall(chunk)
            except OSError:
                return sent
        return times

    def leave(self):
        """Says that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def rest(self, may_reset=False, until=lambda heard: False):
        """Everything until the other side ends: in good order, unless it may reset the connection behind what it said."""
        heard = b""
        try:
            while not until(heard) and (piece := self.socket.recv(65536)):
                heard += piece
        except ConnectionResetError:
            assert may_reset, f"reset after {heard}"
        return heard

    def _some(self, count):
        piece = self.socket.recv(count)
        assert piece, "the other side has gone"
        return piece

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
