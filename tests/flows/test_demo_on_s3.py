"""The demo on an object store: every flow, the printed report and what Prefect's UI shows."""

import base64
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter

from flows.demo import demo
from flows.printing import print_demo_report
from warehouse import Warehouse


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("SOLA_CACHE", str(tmp_path / "cache"))
    boto3.client("s3").create_bucket(Bucket="demo-bucket")
    yield "s3://demo-bucket/warehouse"
    server.stop()


def artifact(key: str, run_id: str) -> str:
    """The artifact about a run; the server has those of other tests, too."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(key={"any_": [key]}))
    (about_run,) = {a.data for a in found if run_id in a.data}
    return about_run


def test_the_demo(
    bucket: str, prefect_server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    run_id = demo(bucket, videos={"train": 2, "valid_u": 1}, workers=1)
    print_demo_report(bucket, run_id)
    printed = capsys.readouterr().out
    assert f"J&F in percent on held-out clips, run {run_id}" in printed
    assert f"sola query --warehouse {bucket}" in printed
    assert not list(tmp_path.glob("s3*"))  # nothing took the URL for a path
    assert len(Warehouse(bucket).current("evaluate", run_id=run_id)) == 1

    text = artifact("evaluation", run_id)
    assert f"## {run_id} on demo/valid_u, in percent" in text
    assert f"In {bucket}" in text and f"`selectors/{run_id}" in text
    assert "`data/predictions/demo/valid_u`" in text
    (headline,) = Warehouse(bucket).connect().sql(
        f"SELECT round(100 * avg(jf), 2) FROM scores WHERE run_id = '{run_id}'"
    ).fetchall()  # fmt: skip
    assert f"| {headline[0]} |" in text
    pictures = re.findall(r"!\[(\w[\w ]*)\]\(data:image/jpeg;base64,([^)]+)\)", text)
    assert {name for name, _ in pictures} == {"ground truth", "prediction"}
    assert len(pictures) == 4  # of the video's worst and best expression
    for _, content in pictures:
        assert Image.open(io.BytesIO(base64.b64decode(content))).height == 96
    assert f"### {run_id}" in artifact("run", run_id)
