"""What a commit was made from and how: kept whatever happens to its files, and asked by SQL."""

import json
from typing import Any

import pyarrow as pa
import pytest

from tests.warehouse.samples import labels, paths, rewrite_record, stage_tables
from warehouse import TABLES, Commit, Key, Warehouse
from warehouse.collect import collect_garbage
from warehouse.commits import Input, Making
from warehouse.compact import RECORD_FILES, compact
from warehouse.verify import verify

VIDEO = Key("mevis", "train", "v1")
GRID, COARSE = VIDEO.of(track_set="grid"), VIDEO.of(track_set="coarse")
RESULT = GRID.of(run_id="run")
TRACKS = ("masks", "tokens")
CHAIN = {"precompute": "tokens", "label": "pseudo_labels", "evaluate": "scores"}
MAKING = Making(
    settings={"10": 1, 9: {"grid": (8, 16)}, "tau": 0.1 + 0.2},
    version=2,
    code="0.3.0",
    host="worker-1",
    device="NVIDIA H100",
    precision="bfloat16",
    wall_seconds=1 / 3,
    cpu_seconds=2.5,
    host_bytes=2**40,
    device_bytes=3,
    left_out=["0: the text has 900 tokens"],
)


def read_of(commit: Commit, *names: str) -> Input:
    return Input(
        stage=commit.stage,
        key=commit.key,
        fingerprint=commit.fingerprint,
        contents={name: commit.content(name) for name in names},
    )


def publish(
    store: Warehouse, stage: str, key: Key, fingerprint: str, *inputs: Input, **tables: Any
) -> Commit:
    given = stage_tables(stage, key) | tables
    return store.publish(stage, key, fingerprint, given, inputs=inputs, making=MAKING)


def publish_tracks(store: Warehouse, key: Key, fingerprint: str, area: int = 3) -> Commit:
    """A track of a video, whose mask has this area."""
    rows = stage_tables("precompute", key)["masks"].to_pylist()
    masks = pa.Table.from_pylist([row | {"area": area} for row in rows], TABLES["masks"])
    return publish(store, "precompute", key, fingerprint, masks=masks)


def publish_chain(store: Warehouse, key: Key = GRID) -> list[Commit]:
    """Tracks, labels of them, and scores that are made from the labels."""
    tracks = publish_tracks(store, key, "a")
    label = publish(store, "label", key, "a", read_of(tracks, *TRACKS))
    result = key.of(run_id="run")
    score = publish(store, "evaluate", result, "a", read_of(label, "pseudo_labels"))
    return [tracks, label, score]


def stale(store: Warehouse) -> list[str]:
    """The stages with stale commits, by `Warehouse.stale`; tables and `commits` say the same."""
    current = [commit for stage in CHAIN for commit in store.current(stage).values()]
    found = [commit.stage for commit in store.stale(current)]
    with store.connect() as connection:
        in_tables = [
            stage
            for stage, table in CHAIN.items()
            for (is_stale,) in connection.sql(f"SELECT stale FROM {table}").fetchall()
            if is_stale
        ]
        sql = "SELECT stage FROM commits WHERE stale"
        in_commits = [stage for (stage,) in connection.sql(sql).fetchall()]
    assert found == in_tables and sorted(found) == sorted(in_commits)
    return found


def test_what_it_was_made_from_survives(warehouse: Warehouse) -> None:
    """Writing and reading, compaction, packs, garbage collection, and being used again."""
    frames = {"frames": "hash"}
    ingested = warehouse.publish(
        "ingest", VIDEO, "a", stage_tables("ingest", VIDEO), contents=frames
    )
    tracks = publish_tracks(warehouse, GRID, "a")
    made = publish(
        warehouse, "label", GRID, "a", read_of(ingested, "frames"), read_of(tracks, *TRACKS)
    )
    assert made.making.settings == {"10": 1, "9": {"grid": [8, 16]}, "tau": 0.1 + 0.2}
    assert ingested.content("frames") == "hash"

    def check() -> None:
        store = Warehouse(warehouse.url)
        (commit,) = (c for c in store.current("label").values() if c.key == GRID)
        assert (commit.inputs, commit.making, commit.fingerprint) == (made.inputs, made.making, "a")
        assert commit.content("pseudo_labels") == made.content("pseudo_labels")
        assert store.current("ingest")[VIDEO].contents == frames
        assert store.stale([commit]) == [] and verify(store, 0) == []

    check()
    for index in range(RECORD_FILES + 1):  # so many that a pack replaces the records
        key = Key("mevis", "train", f"w{index}", track_set="grid")
        warehouse.publish("label", key, "a", labels(0.5, key))
    compact(warehouse)
    check()
    collect_garbage(warehouse, 0)
    assert all("/packs/" in path for path in paths(warehouse, "records/label"))
    check()
    publish(warehouse, "label", GRID, "b", pseudo_labels=labels(0.1, GRID)["pseudo_labels"])
    warehouse.reuse("label", GRID, "a")
    check()


def test_the_view_commits_has_all_of_it(warehouse: Warehouse) -> None:
    tracks, *_ = publish_chain(warehouse)
    with warehouse.connect() as connection:
        (row,) = connection.sql("FROM commits WHERE stage = 'label'").to_arrow_table().to_pylist()
    assert json.loads(row["settings"]) == {"10": 1, "9": {"grid": [8, 16]}, "tau": 0.1 + 0.2}
    for name in ("version", "code", "host", "device", "precision", "wall_seconds", "left_out"):
        assert row[name] == getattr(MAKING, name)
    (given,) = row["inputs"]
    assert (given["stage"], given["track_set"]) == ("precompute", "grid")
    assert (given["fingerprint"], given["run_id"]) == (tracks.fingerprint, "")


def test_stale_is_what_had_its_input_replaced(warehouse: Warehouse) -> None:
    publish_chain(warehouse)
    assert stale(warehouse) == []
    publish_tracks(warehouse, GRID, "b", area=4)
    assert stale(warehouse) == ["label", "evaluate"]  # the latter through the former
    compact(warehouse)
    assert stale(Warehouse(warehouse.url)) == ["label", "evaluate"]
    assert warehouse.reuse("precompute", GRID, "a")
    assert stale(warehouse) == []


def test_other_rows_that_were_not_read_make_nothing_stale(warehouse: Warehouse) -> None:
    publish_chain(warehouse)
    publish_tracks(warehouse, COARSE, "b", area=4)
    prompts = stage_tables("precompute", GRID)["prompts"].slice(0, 0)
    publish(warehouse, "precompute", GRID, "c", prompts=prompts)
    assert stale(warehouse) == []


def test_what_lost_its_input_is_stale_until_it_is_back(warehouse: Warehouse) -> None:
    tracks, label, _ = publish_chain(warehouse)
    warehouse.withdraw(label)
    assert stale(warehouse) == ["evaluate"]
    publish(warehouse, "label", GRID, "a", read_of(tracks, *TRACKS))
    assert stale(warehouse) == []
    warehouse.withdraw(tracks)
    assert stale(warehouse) == ["label", "evaluate"]


def test_a_failure_makes_nothing_stale(warehouse: Warehouse) -> None:
    publish_chain(warehouse)
    warehouse.publish_failure("precompute", GRID, "b", "no memory left")
    current = [c for stage in ("label", "evaluate") for c in warehouse.current(stage).values()]
    assert warehouse.stale(current) == []


def test_an_input_of_another_version_that_lacks_what_was_read_is_another(
    warehouse: Warehouse,
) -> None:
    ingested = warehouse.publish(
        "ingest", VIDEO, "a", stage_tables("ingest", VIDEO), contents={"frames": "hash"}
    )
    made = publish(warehouse, "precompute", GRID, "a", read_of(ingested, "frames"))
    warehouse.publish("ingest", VIDEO, "b", stage_tables("ingest", VIDEO))
    assert warehouse.stale([made]) == [made]
    with warehouse.connect() as connection:
        assert connection.sql("SELECT stale FROM tracks").fetchall() == [(True,)]


def test_the_same_fingerprint_with_other_inputs_is_published(warehouse: Warehouse) -> None:
    """Else what was made from the new tracks would count as made from the old."""
    publish_chain(warehouse)
    tracks = publish_tracks(warehouse, GRID, "b", area=4)
    made = publish(warehouse, "label", GRID, "a", read_of(tracks, *TRACKS))
    assert warehouse.stale([made]) == []
    assert publish(warehouse, "label", GRID, "a", read_of(tracks, *TRACKS)) == made
    assert warehouse.reuse("label", GRID, "a", (read_of(tracks, "masks"),)) != made


def test_track_sets_side_by_side_never_mix(warehouse: Warehouse) -> None:
    """The join that the docs give, by every column that two tables share but `stale`."""
    for key, miou in ((GRID, 0.75), (COARSE, 0.25)):
        tracks = publish_tracks(warehouse, key, "a", area=int(miou * 100))
        rows = labels(miou, key)["pseudo_labels"]
        publish(warehouse, "label", key, "a", read_of(tracks, *TRACKS), pseudo_labels=rows)
    masks = warehouse.read("masks", warehouse.current("precompute").values())
    sql = """
        SELECT track_set, area, miou FROM pseudo_labels
        JOIN masks USING (dataset, split, video_id, track_set)
        WHERE NOT pseudo_labels.stale AND NOT masks.stale ORDER BY ALL
    """
    for _ in range(2):
        with warehouse.connect() as connection:
            found = connection.sql(sql).fetchall()
        assert found == [("coarse", 25, 0.25), ("grid", 75, 0.75)]
        assert sorted(masks["track_set"].to_pylist()) == ["coarse", "grid"]
        compact(warehouse)
    collect_garbage(warehouse, 0)
    publish_tracks(warehouse, GRID, "b")
    with Warehouse(warehouse.url).connect() as connection:
        assert connection.sql(sql).fetchall() == [("coarse", 25, 0.25)]


@pytest.mark.parametrize("field", ["inputs", "making", "contents", "weights"])
def test_records_that_have_no_such_field_are_packed_as_they_are(
    warehouse: Warehouse, field: str
) -> None:
    """An earlier version did not write it: its checksum is of a record without."""
    for index in range(RECORD_FILES + 1):
        key = Key("mevis", "train", f"v{index}", track_set="grid")
        warehouse.publish("label", key, "a", labels(0.5, key, rows=0))
    for path in paths(warehouse, "records/label"):
        fields = json.loads(warehouse.storage.read(path))
        del fields[field]
        rewrite_record(warehouse, path, fields)
    before = Warehouse(warehouse.url).current("label")
    store = Warehouse(warehouse.url)
    compact(store, target_bytes=0)  # of data nothing is merged
    collect_garbage(store, 0)
    (pack,) = paths(warehouse, "records/label")
    assert "/packs/" in pack
    assert Warehouse(warehouse.url).current("label") == before
    assert verify(Warehouse(warehouse.url), 0) == []
