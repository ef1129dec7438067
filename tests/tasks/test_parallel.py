"""Videos in worker processes: results in order, progress, and errors that come through."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.parallel import each_video


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_errors_through(workers: int, tmp_path: Path) -> None:
    seen = []

    @contextmanager
    def progress(stage: str, videos: int) -> Iterator:
        seen.append((stage, videos))
        yield lambda done, failed: seen.append(done)

    files = [tmp_path / str(n) for n in range(7)]
    for n, file in enumerate(files[:6]):
        file.write_text(str(n))
    found = each_video(Path.read_text, files[:6], workers, "read", progress)
    assert list(found) == [str(n) for n in range(6)]
    assert seen == [("read", 6), *[1] * 6]
    with pytest.raises(FileNotFoundError):
        list(each_video(Path.read_text, files, workers, "read", progress))
