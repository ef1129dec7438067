"""A proxy in front of an S3 server that fails some requests the way object stores do."""

import http.client
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ERROR = b"<Error><Code>%s</Code><Message>injected</Message></Error>"
FAULTS = ("500", "slow down", "cut", "done but not told")


@contextmanager
def flaky_proxy(endpoint: str, rate: float, seed: int, stall: float = 0) -> Iterator[list[str]]:
    """Yields a list: the proxy's host:port, then the faults as they are made.

    Each request fails with the probability `rate`; the first one stalls for `stall` seconds.
    """
    chance, lock = random.Random(seed), threading.Lock()
    made: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                fault = chance.choice(FAULTS) if chance.random() < rate else ""
                if stall and len(made) == 1:
                    fault = "stall"
                if fault:
                    made.append(fault)
            if fault == "stall":
                time.sleep(stall)
            if fault == "cut":
                self.close_connection = True
                return
            if fault == "500":
                return self.answer(500, ERROR % b"InternalError")
            if fault == "slow down":
                return self.answer(503, ERROR % b"SlowDown")
            upstream = http.client.HTTPConnection(urlsplit(endpoint).netloc)
            upstream.request(self.command, self.path, body, dict(self.headers))
            response = upstream.getresponse()
            content = response.read()
            if fault == "done but not told":
                return self.answer(500, ERROR % b"InternalError")
            self.answer(response.status, content, dict(response.getheaders()))

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

        def answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response_only(status)
            sent = {"Content-Length": str(len(content))} | (headers or {})
            for name, value in sent.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.append(f"127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
