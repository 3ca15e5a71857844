"""The headers of requests to /v1/connect, for clients that speak HTTP themselves."""

from . import tokens

HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def bearer(token=None):
    return {"Authorization": f"Bearer {token or tokens.token()}"}


def without(headers, name):
    return {key: value for key, value in headers.items() if key != name}
