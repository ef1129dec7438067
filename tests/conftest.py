"""What holds in every test: one thread, and Prefect off the internet and out of the home folder.

Tests run side by side, a file in one process: they share nothing but what pytest gives them. Those
marked "slow" start servers, clusters or browsers, or go through whole stages.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator

import hypothesis
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
# Examples take as long as the machine takes: other tests run beside them.
hypothesis.settings.register_profile(
    "sola", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("sola")


SLOW_FIXTURES = {"prefect_server", "evaluated_demo", "environment", "cluster", "browser"}
SLOW_FILES = {
    "test_box_tracks.py",
    "test_chaos.py",
    "test_doctor.py",
    "test_every_data_set.py",
    "test_format_2.py",
    "test_on_gpu.py",
    "test_parity.py",
    "test_release.py",
    "test_resume.py",
    "test_runtime.py",
    "test_search.py",
    "test_tasks.py",
    "test_training.py",
    "test_upgrade.py",
    "test_zero_shot.py",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow tests, and start with their files: the quick ones fill up what is left."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if item.path.name in SLOW_FILES or SLOW_FIXTURES.intersection(fixtures):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_unconfigure() -> None:
    shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """The API URL of a private Prefect server; a test that runs a flow asks for it."""
    from flows.runtime import prefect_api

    with prefect_api() as url:
        yield url
