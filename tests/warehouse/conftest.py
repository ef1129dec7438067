"""The places a warehouse can be: every test that asks for `place` runs on disk and on S3."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from warehouse import Warehouse


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of a local S3 server, which the environment names, too."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }
    yield endpoint
    server.stop()


@pytest.fixture(params=["disk", "s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str | Path:
    """Where a new warehouse may be made."""
    if request.param == "disk":
        return tmp_path / "warehouse"
    request.getfixturevalue("s3_endpoint")
    monkeypatch.setenv("SOLA_CACHE", str(tmp_path / "cache"))
    return f"s3://{new_bucket()}/a/prefix"


def new_bucket() -> str:
    import boto3

    name = uuid.uuid4().hex
    boto3.client("s3").create_bucket(Bucket=name)
    return name


@pytest.fixture
def warehouse(place: str | Path) -> Warehouse:
    return Warehouse.create(place)
