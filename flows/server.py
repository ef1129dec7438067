"""A private Prefect server: a child process with a throw-away database that cannot outlive us.

And what a Prefect server of ours needs, `make up`'s as well: no proxy, no settings of another.
"""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

START_TIMEOUT_S = 120.0  # measured: 8 to 15 s, nearly all of it imports and table creation
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # without a proxy
ANSWER_TIMEOUT_S = 10.0  # of a server that runs already


class ServerError(RuntimeError):
    """A Prefect server does not start or does not answer; the message says what to do."""


def without_proxy(*hosts: str) -> dict[str, str]:
    """Environment variables by which this machine and `hosts` are reached without a proxy."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    names = [name.strip() for name in known.split(",") if name.strip()]
    value = ",".join(dict.fromkeys([*names, "127.0.0.1", "localhost", *hosts]))
    return {"NO_PROXY": value, "no_proxy": value}


def without_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of Prefect: a profile's are meant for another server."""
    return {name: environment[name] for name in environment if not name.startswith("PREFECT_")}


def check_answers(url: str) -> None:
    """Raise ServerError unless something answers at the URL of a Prefect API."""
    try:
        urllib.request.urlopen(f"{url}/health", timeout=ANSWER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError, HTTPException) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            return  # it answers, and Prefect's settings say whom to trust
        raise ServerError(
            f"no Prefect server answers at {url} ({error}). Start it, or unset PREFECT_API_URL "
            "(in the environment or your Prefect profile): then there is a private server"
        ) from error


@contextmanager
def private_server(settings: Mapping[str, str]) -> Iterator[str]:
    """Run a Prefect server with these PREFECT_* settings; yield the URL of its API.

    It stays off the internet, takes a free local port, answers no page of another origin and
    keeps its database in a temporary folder. Other settings, of a profile or the environment, are
    not for it.

    Raises:
        ServerError: it did not start; the message ends with its log.
    """
    home = tempfile.mkdtemp(prefix="sola-prefect-")
    environment = {
        **without_settings(os.environ),
        **without_proxy(),
        **settings,
        "PREFECT_HOME": home,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_UI_ENABLED": "false",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "",
    }
    log = Path(home, "server.log")
    # The port is bound here and handed down, so nobody can take it before the server listens.
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = subprocess.Popen(
            [sys.executable, "-P", __file__, str(listener.fileno()), str(os.getpid()), home],
            env=environment,
            pass_fds=[listener.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us; the flow still has to report its end
        )
    try:
        _wait_until_healthy(url, server, log)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(timeout=5)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            DIRECT.open(f"{url}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.1)
    ended = server.poll() is not None
    what = f"ended with code {server.returncode}" if ended else "did not answer in time"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise ServerError(
        f"the private Prefect server {what}. Install the versions in constraints.txt, or run "
        f"`prefect server start` and set PREFECT_API_URL. The end of the server's log:\n{tail}"
    )


def die_with(parent: int, scratch: str | None = None) -> None:
    """End this process (and remove `scratch`) within a second of its parent, even at kill -9.

    `parent` is a process id, taken by the parent itself: it may be dead before we look.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        if scratch:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _serve(listener: int, parent: int, home: str) -> None:
    """The child process: serve Prefect's API on the inherited socket."""
    die_with(parent, home)
    import uvicorn

    app = "prefect.server.api.server:create_app"
    config = uvicorn.Config(app, factory=True, log_level="warning")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=listener)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
