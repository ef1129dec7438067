"""Prefect's server, work pool, deployments and workers on this machine: `make up`, `make down`.

    python -m flows.services up
    python -m flows.services down

Process ids, logs, the server's database and a password live in `.services/` (or $SOLA_SERVICES),
until `down` removes them. There is one worker for each GPU, or one for the CPU; each runs one flow
at a time. All stays off the internet. The server listens on this machine alone, or at SOLA_HOST,
where workers of others can reach it, and answers nobody without the password: who may ask it may
run programs.
"""

import base64
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from flows.server import DIRECT, without_proxy, without_settings
from warehouse.submissions import replacing

FOLDER = Path(os.environ.get("SOLA_SERVICES", ".services")).resolve()
HOST = os.environ.get("SOLA_HOST", "127.0.0.1")
PORT = int(os.environ.get("SOLA_PORT", "4200"))
POOL = "sola"
SETTINGS = FOLDER / "env.sh"  # for `prefect` by hand, here and on other machines
START_TIMEOUT_S, STOP_TIMEOUT_S = 120, 15


def up() -> None:
    """Start everything, deploy every flow of prefect.yaml and say where the UI is.

    Raises:
        RuntimeError: something is running already, or the server did not start.
    """
    if running := [name for name, file in _pid_files().items() if _pid(file)]:
        raise RuntimeError(f"{', '.join(running)} is running already; `make down` stops it")
    _check_port()
    FOLDER.mkdir(parents=True, exist_ok=True)
    _write_settings(f"sola:{secrets.token_urlsafe(24)}")
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
It asks for the password, PREFECT_API_AUTH_STRING in {SETTINGS}.
The schedules of prefect.yaml run from now on. Run one now, stop everything:
  . {shlex.quote(str(SETTINGS))}; {_executable()} deployment run refresh/refresh
  make down"""
    )


def down() -> None:
    """Stop the workers, then the server, and remove what `up` has made."""
    files = _pid_files()
    for name in sorted(files, reverse=True):  # the workers before the server
        if _pid(files[name]):
            _stop(files[name])
            print(f"stopped {name}")
        files[name].unlink()
    shutil.rmtree(FOLDER / "prefect", ignore_errors=True)
    for file in (SETTINGS, *FOLDER.glob("server.log"), *FOLDER.glob("worker*.log")):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # it was not there, or holds what is not ours
        FOLDER.rmdir()


def _api() -> str:
    return f"http://{HOST}:{PORT}/api"


def _executable() -> str:
    beside = Path(sys.executable).with_name("prefect")
    return str(beside if beside.exists() else shutil.which("prefect"))


def _check_port() -> None:
    """Raise RuntimeError when another program listens on our port, be it a Prefect server."""
    try:
        socket.create_server((HOST, PORT)).close()
    except OSError as error:
        raise RuntimeError(
            f"cannot listen on {HOST}:{PORT} ({error.strerror}): another program may do so. Choose "
            "another port with SOLA_PORT."
        ) from error


def _write_settings(password: str) -> None:
    """What a client of our server has in its environment; for the owner's eyes alone."""
    settings = {
        "PREFECT_API_URL": _api(),
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        **without_proxy(HOST),
    }
    SETTINGS.unlink(missing_ok=True)
    SETTINGS.touch(mode=0o600)
    SETTINGS.write_text(
        "".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items())
    )


def _settings() -> dict[str, str]:
    lines = SETTINGS.read_text().splitlines()
    return dict(shlex.split(line)[1].split("=", 1) for line in lines)


def _environment() -> dict[str, str]:
    """What all our processes have: settings of the server may come from outside, others may not."""
    server = {name: os.environ[name] for name in os.environ if name.startswith("PREFECT_SERVER_")}
    settings = _settings()
    return {
        **without_settings(os.environ),
        **server,
        **settings,
        "PREFECT_HOME": str(FOLDER / "prefect"),
        "PREFECT_UI_API_URL": _api(),
        "PREFECT_SERVER_API_AUTH_STRING": settings["PREFECT_API_AUTH_STRING"],
        "PREFECT_SERVER_API_BASE_PATH": "/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{PORT}",  # the UI
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
    with replacing(FOLDER / f"{name}.pid") as file:
        file.write(f"{process.pid} {_started(process.pid)}".encode())


def _wait_for_server() -> None:
    """Return when our server answers, which takes our password and nothing else."""
    deadline = time.monotonic() + START_TIMEOUT_S
    password = base64.b64encode(_settings()["PREFECT_API_AUTH_STRING"].encode()).decode()
    while time.monotonic() < deadline and _pid(FOLDER / "server.pid"):
        if _status({}) == 401 and _status({"Authorization": f"Basic {password}"}) == 200:
            return
        time.sleep(0.2)
    raise RuntimeError(
        f"the Prefect server did not start on port {PORT}; see {FOLDER / 'server.log'}. If the "
        "port is taken, choose another with SOLA_PORT. `make down` stops what has started."
    )


def _status(headers: dict[str, str]) -> int | None:
    """The HTTP status of the API's answer, None without an answer."""
    try:
        request = urllib.request.Request(f"{_api()}/admin/version", headers=headers)
        with DIRECT.open(request, timeout=2) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def _pid_files() -> dict[str, Path]:
    found = (*FOLDER.glob("server.pid"), *FOLDER.glob("worker*.pid"))
    return {path.stem: path for path in found}


def _pid(file: Path) -> int | None:
    """The process that the file names; None when it is gone, or the file is damaged.

    Process ids are used again: with it stands when the process started.
    """
    pid, _, started = file.read_text(errors="replace").partition(" ")
    return int(pid) if started and pid.isdecimal() and _started(int(pid)) == started else None


def _started(pid: int) -> str | None:
    """When a process started, as no other with its id has; None when there is none."""
    if Path("/proc/self/stat").exists():
        try:
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if state == "Z" else f"{boot} {fields[18]}"
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, started = subprocess.run(command, capture_output=True, text=True).stdout.partition(
        " "
    )
    return None if state.startswith("Z") or not started else started.strip()


def _stop(file: Path) -> None:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    sent = signal.SIGTERM
    while pid := _pid(file):
        with suppress(ProcessLookupError):
            os.killpg(pid, sent)
        sent = signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL
        time.sleep(0.5)


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    try:
        {"up": up, "down": down}[sys.argv[1]]()
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
