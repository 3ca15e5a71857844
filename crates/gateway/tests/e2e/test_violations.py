"""T5: every way to break RFC 6455 is answered with the close code for it, whatever it stands between."""

import json

import pytest
from support.raw_client import (
    BINARY, CLOSE, FIN, KEY, PING, PONG, TEXT, RawClient, close, frame, frames_in, header, mask, text,
)

MESSAGE_BYTES = 4096
FRAGMENTS = 16

SETTINGS = {"workers": 1, "limits": {"message_bytes": MESSAGE_BYTES, "message_fragments": FRAGMENTS}}

RESERVED_OPCODES = [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF]
# RFC 6455 §7.4.1 and §7.4.2: those that stand for something no frame says, and those that nobody has defined.
UNSENDABLE_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
BAD_UTF8 = {
    "a byte that never occurs": b"\xff",
    "a continuation of nothing": b"\x80",
    "an overlong form": b"\xc0\xaf",
    "a surrogate": b"\xed\xa0\x80",
    "beyond the last character": b"\xf4\x90\x80\x80",
    "half a character": b"\xc3",
}

VIOLATIONS = {
    # §5.2
    **{f"reserved bit {bit:#x}": (1002, frame(FIN | bit | TEXT, b"{}")) for bit in (0x40, 0x20, 0x10)},
    "a reserved bit on a ping": (1002, frame(FIN | 0x40 | PING)),
    **{f"reserved opcode {opcode:#x}": (1002, frame(FIN | opcode, b"x")) for opcode in RESERVED_OPCODES},
    "a length of 2^63": (1002, header(FIN | BINARY, 1 << 63)),
    "a short length in two bytes": (1002, header(FIN | TEXT, 5, form=2) + b"hello"),
    "a short length in eight bytes": (1002, header(FIN | TEXT, 300, form=8) + bytes(300)),
    # §5.1
    "no mask": (1002, frame(FIN | TEXT, b"{}", masked=False)),
    "a ping without a mask": (1002, frame(FIN | PING, masked=False)),
    "a close without a mask": (1002, frame(FIN | CLOSE, b"\x03\xe8", masked=False)),
    # §5.4
    "a continuation of nothing": (1002, frame(FIN | 0, b"x")),
    "an open continuation of nothing": (1002, frame(0, b"x")),
    "a message inside a message": (1002, frame(TEXT, b"{") + frame(FIN | TEXT, b"}")),
    "a fragment of another kind": (1002, frame(TEXT, b"{") + frame(BINARY, b"}")),
    # §5.5
    "a long ping": (1002, frame(FIN | PING, bytes(126))),
    "a long pong": (1002, frame(FIN | PONG, bytes(126))),
    "a long close": (1002, frame(FIN | CLOSE, b"\x03\xe8" + b"x" * 124)),
    "a fragmented ping": (1002, frame(PING, b"a") + frame(FIN | 0, b"b")),
    "a fragmented close": (1002, frame(CLOSE, b"\x03\xe8")),
    # §5.5.1, §7.4
    "a close of one byte": (1002, frame(FIN | CLOSE, b"\x03")),
    **{f"a close with {code}": (1002, close(code)) for code in UNSENDABLE_CODES},
    "a close whose reason is not text": (1007, close(1000, b"\xff")),
    # §8.1
    **{f"text with {fault}": (1007, frame(FIN | TEXT, b"ok " + bad)) for fault, bad in BAD_UTF8.items()},
    "bad text in the second fragment": (1007, frame(TEXT, b"ok") + frame(FIN | 0, b"\xff")),
    "half a character at the end of a message": (1007, frame(TEXT, b"ok \xe2\x82") + frame(FIN | 0)),
    "bad text before the message is whole": (1007, header(FIN | TEXT, 100) + mask(b"\xff", KEY)),
    # What this service does not take.
    "a binary message": (1003, frame(FIN | BINARY, b"{}")),
    "a binary message in two": (1003, frame(BINARY, b"{") + frame(FIN | 0, b"}")),
    "an empty binary message": (1003, frame(FIN | BINARY)),
    "one byte too many": (1009, frame(FIN | TEXT, b"." * (MESSAGE_BYTES + 1))),
    "one byte too many, announced": (1009, header(FIN | TEXT, MESSAGE_BYTES + 1)),
    "one byte too many, in all": (1009, frame(TEXT, b"." * MESSAGE_BYTES) + frame(FIN | 0, b".")),
    "2^62 bytes, announced": (1009, header(FIN | TEXT, 1 << 62)),
    "one fragment too many": (1008, frame(TEXT) + frame(0) * (FRAGMENTS - 1) + frame(FIN | 0)),
}

GOOD_CLOSES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]


def ping(number):
    return text(json.dumps({"id": number, "op": "ping"}))


def answers(heard):
    """What a whole connection brought after its welcome: ids of pongs, then the close's code and reason."""
    (opcode, welcome), *frames, (last, closing) = frames_in(heard)
    assert opcode == TEXT and json.loads(welcome)["op"] == "welcome"
    assert last == CLOSE
    replies = [json.loads(payload) for opcode, payload in frames if opcode == TEXT]
    assert len(replies) == len(frames) and all(reply["op"] == "pong" for reply in replies), frames
    return [reply["id"] for reply in replies], int.from_bytes(closing[:2], "big") if closing else None, closing[2:]


@pytest.mark.parametrize("entrance", ["node", "nginx"])
@pytest.mark.parametrize("case", VIOLATIONS)
def test_t5_a_violation_is_closed_with_its_code(cluster, case, entrance):
    """What came before it is answered, and what comes after it is not. The node ends with a FIN; nginx, which drops what
    it could not pass on any more, may end with a reset."""
    code, offence = VIOLATIONS[case]
    is_nginx = entrance == "nginx"
    # Bytes behind an announced length are its payload.
    behind = b"" if "announced" in case or "before" in case else ping(2)
    in_bytes = [1] if len(offence) < 200 and not is_nginx else []
    for piece in (None, *in_bytes):
        with RawClient(cluster.nginx.plain if is_nginx else cluster.nodes[0].public).upgrade() as client:
            client.send(ping(1) + offence + behind, piece)
            ids, found, reason = answers(client.rest(may_reset=is_nginx))
            assert (ids, found) == ([1], code)
            assert reason


@pytest.mark.parametrize("code", GOOD_CLOSES)
def test_a_good_close_is_answered_with_its_code(cluster, code):
    with RawClient(cluster.nodes[0].public).upgrade() as client:
        client.send(ping(1) + close(code, "grüße".encode()) + ping(2))
        assert answers(client.rest()) == ([1], code, b"")


def test_a_close_without_a_code_is_answered_without_one(cluster):
    with RawClient(cluster.nodes[0].public).upgrade() as client:
        client.send(frame(FIN | CLOSE))
        assert answers(client.rest()) == ([], None, b"")


def test_what_is_legal_is_no_violation(cluster):
    """Without this, everything above could be refused for a reason of its own."""
    command = json.dumps({"id": 1, "op": "ping"}).encode()
    longest = command.ljust(MESSAGE_BYTES)
    for legal in (
        frame(FIN | TEXT, command),
        frame(FIN | TEXT, longest),
        frame(TEXT, longest[:4000]) + frame(0, longest[4000:]) + frame(FIN | 0),
        frame(TEXT) + frame(0) * (FRAGMENTS - 2) + frame(FIN | 0, command),
        frame(TEXT, command[:5]) + frame(FIN | PONG, b"unasked") + frame(FIN | 0, command[5:]),
    ):
        with RawClient(cluster.nodes[0].public).upgrade() as client:
            client.send(legal + close(1000), piece=7 if len(legal) < 200 else None)
            assert answers(client.rest()) == ([1], 1000, b"")


def test_a_ping_between_fragments_is_answered_between_them(cluster):
    with RawClient(cluster.nodes[0].public).upgrade() as client:
        client.send(frame(TEXT, b'{"id":1,') + frame(FIN | PING, b"x" * 125) + frame(FIN | 0, b'"op":"ping"}') + close(1000))
        _, (first, payload), (second, reply), (last, _) = frames_in(client.rest())
        assert (first, payload) == (PONG, b"x" * 125)
        assert second == TEXT and json.loads(reply)["op"] == "pong" and last == CLOSE
