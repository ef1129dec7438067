"""Waiting for what other processes do."""

import subprocess
import time
from collections.abc import Callable

PATIENCE_S = 600.0  # no measure of speed: only a test that fails waits as long


def wait_for(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Return once the condition holds; `process` must be running until then."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert process is None or process.poll() is None, "the process ended before"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
