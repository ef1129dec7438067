"""What holds in every test: one thread, and Prefect off the internet and out of the home folder."""

import os
import shutil
import tempfile
from collections.abc import Iterator

import pytest

HOME = tempfile.mkdtemp(prefix="sola-tests-")
for name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[name]
os.environ |= {
    "OMP_NUM_THREADS": "1",  # read when torch is imported, here and in child processes
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_HOME": HOME,
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",  # a flow without `prefect_server` is an error
}


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The API URL of a private Prefect server; a test that runs a flow asks for it."""
    from flows.runtime import prefect_api

    with prefect_api() as url:
        yield url
