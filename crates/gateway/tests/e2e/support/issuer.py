"""A login service that publishes its keys, as identity providers do: it signs with RSA by openssl and serves a JWK set."""

import base64
import contextlib
import http.server
import json
import ssl
import subprocess
import threading
import time

from .process import own_address


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Key:
    """An RSA key in a file of the story's directory."""

    def __init__(self, kid, directory):
        self.kid = kid
        self.file = directory / f"{kid}.pem"
        openssl("genrsa", "-out", str(self.file), "2048")

    def jwk(self):
        modulus = openssl("rsa", "-in", str(self.file), "-modulus", "-noout").decode().strip().partition("=")[2]
        n = base64url(bytes.fromhex(modulus))
        return {"kty": "RSA", "kid": self.kid, "use": "sig", "alg": "RS256", "n": n, "e": "AQAB"}

    def token(self, sub="alice", ttl=3600, kid=None, **claims):
        header = {"alg": "RS256", "typ": "JWT", "kid": kid or self.kid}
        grants = {"subscribe": ["**"], "publish": []}
        claims = {"sub": sub, "exp": int(time.time() + ttl), "causeway": grants} | claims
        signed = ".".join(base64url(json.dumps(part).encode()) for part in (header, claims))
        signature = openssl("dgst", "-sha256", "-sign", str(self.file), given=signed.encode())
        return f"{signed}.{base64url(signature)}"


class Issuer:
    """Serves `keys` at `url` and counts how often it was asked.."""

    def __init__(self, *keys):
        self.keys = list(keys)
        self.asked = 0
        self.status = 200

    def document(self):
        return json.dumps({"keys": [key.jwk() for key in self.keys]}).encode()


@contextlib.contextmanager
def serving(issuer, tls=None):
    """Over TLS where `tls` is a directory for the certificate, `issuer.pem`, which is for the address only."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            issuer.asked += 1
            body = issuer.document() if issuer.status == 200 else b""
            self.send_response(issuer.status)
            self.send_header("Content-Length", str(len(body)))
            # Where a client would go that followed redirects.
            self.send_header("Location", issuer.url)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_):
            pass  # a client that does not trust the certificate breaks off

    with Server((own_address(), 0), Handler) as server:
        address, port = server.server_address
        if tls:
            server.socket = over_tls(server.socket, address, tls / "issuer.pem")
        issuer.url = f"{'https' if tls else 'http'}://{address}:{port}/jwks.json"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()


def over_tls(socket, address, certificate):
    key = certificate.with_suffix(".key")
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=issuer", "-days", "1",
            "-addext", f"subjectAltName=IP:{address}", "-addext", "basicConstraints=critical,CA:FALSE", "-keyout", str(key), "-out", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context.wrap_socket(socket, server_side=True)


def openssl(*arguments, given=None):
    return subprocess.run(["openssl", *arguments], input=given, capture_output=True, check=True).stdout
