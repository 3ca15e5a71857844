"""An OpenTelemetry collector as far as traces go: it takes OTLP/HTTP in protobuf and keeps the spans."""

import contextlib
import dataclasses
import http.server
import threading

from .process import own_address


@dataclasses.dataclass
class Span:
    trace: str
    id: str
    parent: str  # empty where it is the first of its trace
    name: str
    kind: int
    attributes: dict
    is_error: bool


class Collector:
    """Serves at `url`; `bodies` are the requests as they came."""

    def __init__(self):
        self.bodies = []

    @property
    def spans(self):
        return [span for body in self.bodies for span in spans_in(body)]

    def resource(self):
        """Whose spans the first request brought."""
        (resource_spans, *_) = fields(self.bodies[0])[1]
        return attributes(fields(fields(resource_spans)[1][0])[1])


@contextlib.contextmanager
def collecting(address=None):
    """At an address of its own, or at this one, of a collector that has gone."""
    collector = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_otlp = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if is_otlp:
                collector.bodies.append(body)
            self.send_response(200 if is_otlp else 400)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(address or (own_address(), 0), Handler) as server:
        collector.address = server.server_address
        collector.url = "http://{}:{}/v1/traces".format(*server.server_address)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def spans_in(body):
    """The spans of an ExportTraceServiceRequest (opentelemetry-proto, trace/v1/trace.proto)."""
    for resource_spans in fields(body)[1]:
        for scope_spans in fields(resource_spans)[2]:
            for span in map(fields, fields(scope_spans)[2]):
                status = fields(span.get(15, [b""])[0])
                yield Span(
                    trace=span[1][0].hex(), id=span[2][0].hex(), parent=span.get(4, [b""])[0].hex(),
                    name=span[5][0].decode(), kind=span.get(6, [0])[0], attributes=attributes(span.get(9, [])),
                    is_error=status.get(3) == [2],
                )


def attributes(pairs):
    """KeyValues whose values are strings or integers."""
    told = {}
    for pair in map(fields, pairs):
        value = fields(pair[2][0])
        told[pair[1][0].decode()] = value[1][0].decode() if 1 in value else value.get(3, [None])[0]
    return told


def fields(message):
    """A protobuf message as {field number: [values]}: integers, and bytes for everything else."""
    found, at = {}, 0
    while at < len(message):
        tag, at = varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = varint(message, at)
        else:
            if wire_type == 2:
                length, at = varint(message, at)
            else:
                length = {1: 8, 5: 4}[wire_type]
            value, at = message[at:at + length], at + length
        found.setdefault(number, []).append(value)
    return found


def varint(message, at):
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
