"""A local S3 server that fails some requests the way object stores do."""

import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request

ERROR = "<Error><Code>{}</Code><Message>injected</Message></Error>"
FAULTS = ("internal error", "slow down", "connection cut", "done but not told")


class Flaky:
    """The server's application; `rate` of the requests fail, and while `stall`, they hang."""

    def __init__(self, seed: int) -> None:
        self.rate, self.stall = 0.0, 0.0
        self.made: list[str] = []
        self.url_options = ""
        self._chance = random.Random(seed)
        self._app = DomainDispatcherApplication(create_backend_app)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        stall, self.stall = self.stall, 0.0
        fault = self._chance.choice(FAULTS) if self._chance.random() < self.rate else ""
        fault = "stall" if stall else fault
        if fault:
            self.made.append(fault)
        time.sleep(stall)
        if fault in ("", "stall"):
            return self._app(environ, start)
        if fault == "done but not told":
            list(self._app(environ, lambda *_: None))
        else:
            Request(environ).get_data()
        if fault == "connection cut":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        code = "SlowDown" if fault == "slow down" else "InternalError"
        start("503 Slow Down" if fault == "slow down" else "500 Internal Server Error", [])
        return [ERROR.format(code).encode()]


@contextmanager
def flaky_s3(seed: int) -> Iterator[Flaky]:
    """A server with the buckets of this process's others, at `s3://bucket/prefix?<url_options>`."""
    app = Flaky(seed)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    app.url_options = f"endpoint_override=127.0.0.1:{server.server_port}&scheme=http"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield app
    finally:
        server.shutdown()
