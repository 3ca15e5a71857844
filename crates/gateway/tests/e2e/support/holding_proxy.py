"""A TCP proxy between a node and Redis that can hold back what Redis says."""

import socket
import socketserver
import threading

from .process import own_address


class HoldingProxy(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, server):
        super().__init__((own_address(), 0), _Link)
        self.server_behind = (server.address, server.port)
        self.url = "redis://{}:{}".format(*self.server_address)
        self.held = b""  # said by Redis since `hold`, and not yet passed on
        self._flowing = threading.Event()
        self._flowing.set()

    def hold(self):
        self._flowing.clear()

    def release(self):
        self.held = b""
        self._flowing.set()

    def pass_on(self, link, said):
        if not self._flowing.is_set():
            self.held += said
            self._flowing.wait()
        link.sendall(said)

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.release()
        self.shutdown()
        self.server_close()


class _Link(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection(self.server.server_behind) as behind:
            threading.Thread(target=self._forth, args=(behind,), daemon=True).start()
            self._back(behind)

    def _forth(self, behind):
        try:
            while asked := self.request.recv(65536):
                behind.sendall(asked)
            behind.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the other direction has ended the link

    def _back(self, behind):
        try:
            while said := behind.recv(65536):
                self.server.pass_on(self.request, said)
        except OSError:
            pass  # the node has left
