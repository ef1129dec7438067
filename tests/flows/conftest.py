"""What the tests of the command line share."""

import pytest


@pytest.fixture
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting Prefect's server, or asking a configured one, fails the test."""

    def started(*_: object) -> None:
        pytest.fail("a server was started")

    monkeypatch.setattr("flows.runtime.private_server", started)
    monkeypatch.setattr("flows.runtime.check_answers", started)
