"""Tokens as an application's login service would issue them, with the one key that every node of a run knows."""

import secrets
import time

import jwt

SECRET = secrets.token_hex(32)
KEY = {"kid": "main", "algorithm": "HS256", "secret": SECRET}


def token(sub="alice", subscribe=("**",), publish=(), ttl=3600, secret=SECRET, **more):
    """A token that expires `ttl` seconds from now; a negative one has expired. `more` are other claims."""
    claims = {
        "sub": sub,
        "exp": int(time.time() + ttl),
        "causeway": {"subscribe": list(subscribe), "publish": list(publish)},
    }
    return jwt.encode(claims | more, secret, algorithm="HS256", headers={"kid": "main"})
