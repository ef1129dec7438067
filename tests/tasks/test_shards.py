"""Shards: each video in exactly one, and each machine's run does its own alone."""

from pathlib import Path

import pytest

from tasks.shards import in_shard
from tasks.stages.ingest import ingest_split
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

IDS = [f"video-{number}" for number in range(800)]


def test_each_video_is_in_one_shard_and_stays_there() -> None:
    parts = [set(filter(in_shard(f"{n}/8"), IDS)) for n in range(1, 9)]
    assert sum(map(len, parts)) == len(IDS) and set.union(*parts) == set(IDS)
    assert all(70 <= len(part) <= 130 for part in parts)
    assert set(filter(in_shard("3/8"), IDS[:100])) == parts[2] & set(IDS[:100])
    assert list(filter(in_shard(None), IDS)) == IDS


@pytest.mark.parametrize("shard", ["0/8", "9/8", "1", "1/0", "a/b", "1/8/2"])
def test_there_is_no_such_shard(shard: str) -> None:
    with pytest.raises(ValueError, match="2/8, the second of eight"):
        in_shard(shard)


def test_shards_together_are_the_split(tmp_path: Path) -> None:
    data, store = tmp_path / "data", tmp_path / "warehouse"
    write_dataset(data, {"train": 6}, frames=2)
    parts = [
        {done.video_id for done in ingest_split(str(store), "demo", str(data), "train", None, s)}
        for s in ("1/2", "2/2")
    ]
    assert parts[0] and parts[1] and not parts[0] & parts[1]
    found = {key.video_id for key in Warehouse(store).current("ingest")}
    assert found == parts[0] | parts[1] and len(found) == 6
