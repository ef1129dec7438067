"""Prefect's server, work pool, deployments and workers on this machine: `make up`, `make down`.

    python -m flows.services up
    python -m flows.services down

Process ids, logs and the server's database live in `.services/` (or $SOLA_SERVICES). There is one
worker for each GPU, or one for the CPU; each runs one flow at a time. All stays off the internet.
The server listens on this machine alone, or at SOLA_HOST, where workers of others can reach it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

FOLDER = Path(os.environ.get("SOLA_SERVICES", ".services")).resolve()
HOST = os.environ.get("SOLA_HOST", "127.0.0.1")
PORT = int(os.environ.get("SOLA_PORT", "4200"))
POOL = "sola"
START_TIMEOUT_S, STOP_TIMEOUT_S = 120, 15


def up() -> None:
    """Start everything, deploy every flow of prefect.yaml and say where the UI is.

    Raises:
        RuntimeError: something is running already, or the server did not start.
    """
    if running := [name for name, pid in _pids().items() if _alive(pid)]:
        raise RuntimeError(f"{', '.join(running)} is running already; `make down` stops it")
    FOLDER.mkdir(parents=True, exist_ok=True)
    _start("server", "server", "start", "--host", HOST, "--port", str(PORT))
    _wait_for_server()
    _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
    _prefect("--no-prompt", "deploy", "--all")
    for gpu in range(_gpus()) or [None]:
        name = "worker" if gpu is None else f"worker-gpu{gpu}"
        bound = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)}
        _start(name, "worker", "start", "--pool", POOL, "--name", name, "--limit", "1", **bound)
    print(
        f"""Prefect's UI: http://{HOST}:{PORT}    (logs: {FOLDER})
The schedules of prefect.yaml run from now on. Run one now, stop everything:
  PREFECT_API_URL={_api()} {_executable()} deployment run refresh/refresh
  make down"""
    )


def down() -> None:
    """Stop the workers, then the server; what it knows of past runs stays in the folder."""
    pids = _pids()
    for name in sorted(pids, reverse=True):  # the workers before the server
        _stop(pids[name])
        (FOLDER / f"{name}.pid").unlink()
        print(f"stopped {name}")


def _api() -> str:
    return f"http://{HOST}:{PORT}/api"


def _executable() -> str:
    beside = Path(sys.executable).with_name("prefect")
    return str(beside if beside.exists() else shutil.which("prefect"))


def _environment() -> dict[str, str]:
    return os.environ | {
        "PREFECT_HOME": str(FOLDER / "prefect"),
        "PREFECT_API_URL": _api(),
        "PREFECT_UI_API_URL": _api(),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _prefect(*arguments: str) -> None:
    done = subprocess.run(
        [_executable(), *arguments], env=_environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(
            f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}\n`make down` stops "
            "what has started."
        )


def _start(name: str, *arguments: str, **bound: str) -> None:
    with (FOLDER / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [_executable(), *arguments],
            env=_environment() | bound,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # outlives this command, and can be stopped with its children
        )
    (FOLDER / f"{name}.pid").write_text(str(process.pid))


def _wait_for_server() -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{_api()}/health", timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            if _alive(_pids()["server"]):
                return
            break  # another program's server answers on our port
    raise RuntimeError(
        f"the Prefect server did not start on port {PORT}; see {FOLDER / 'server.log'}. If the "
        "port is taken, choose another with SOLA_PORT. `make down` stops what has started."
    )


def _pids() -> dict[str, int]:
    return {path.stem: int(path.read_text()) for path in FOLDER.glob("*.pid")}


def _alive(pid: int) -> bool:
    """Whether the process is there and is one of ours: process ids are used again."""
    shown = subprocess.run(
        ["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True
    ).stdout
    return "prefect" in shown and "defunct" not in shown


def _stop(pid: int) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    sent = signal.SIGTERM
    while _alive(pid):
        os.killpg(pid, sent)
        sent = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        time.sleep(0.5)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
