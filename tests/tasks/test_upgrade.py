"""A warehouse of format 2 becomes one of today, and nothing is made again."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sola_model.extraction.sam2_models import DEMO_CHECKPOINT, checkpoint_identity
from tasks import stages
from tasks.runs import find_run
from tasks.search.vectors import SEARCH, Searched
from tasks.stage import Plan
from tasks.stages.detect import DETECT
from tasks.stages.evaluate import score_plan
from tasks.stages.label import LABEL, label_plan
from tasks.stages.precompute import BOX_TRACKS, PRECOMPUTE
from tasks.track_sets import continued, sets_of, tracks_for
from tasks.upgrade.candidates import WRITTEN, candidates_of, extraction_in_format_2
from tasks.upgrade.format_2 import upgrade
from tests.format_2.old_warehouse import (
    EXPECTED,
    as_floats,
    records,
    rewrite,
    unpack,
    written_rows,
)
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.format_2 import Upgraded, digest, old_commits
from warehouse.storage import Disk, open_storage
from warehouse.verify import verify

COMMITS = 58  # that are current
ROWS = {
    name: count for name, count in EXPECTED["rows"].items() if name in TABLES
}  # of views others
VERSIONS = {"detect": 2, "precompute": 2, "box_tracks": 2, "label": 1, "evaluate": 3, "search": 1}
"""Of the stages of 0.2.0: one that was raised since makes its rows again when it is run."""


@pytest.fixture(params=[True, False], ids=["compacted", "as published"])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return unpack(tmp_path / "w", compacted=request.param)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Without compaction: each record is a file that a test may change."""
    return unpack(tmp_path / "w", compacted=False)


def test_the_error_names_the_command(published: Path) -> None:
    with pytest.raises(WarehouseError, match=f"sola upgrade --warehouse {published}"):
        Warehouse(published)


def test_every_row_stays_as_it_is(old: Path) -> None:
    before = written_rows(old)
    files = {file: file.read_bytes() for file in old.glob("data/tokens/**/*.parquet")}
    assert upgrade(str(old)) == COMMITS
    connection = Warehouse(old).connect()
    for table, count in ROWS.items():
        assert connection.sql(f"SELECT count(*) FROM {table}").fetchall() == [(count,)], table
        if table in before:
            names = before[table].column_names
            connection.register("written", as_floats(before[table]))
            columns = ", ".join(f'"{name}"' for name in names)
            for one, other in ((table, "written"), ("written", table)):
                more = f"SELECT {columns} FROM {one} EXCEPT ALL SELECT {columns} FROM {other}"
                assert connection.sql(more).fetchall() == [], table
    assert connection.sql("SELECT avg(jf) FROM scores").fetchall()[0][0] == pytest.approx(
        EXPECTED["mean_jf"], rel=1e-12
    )
    tokens = "SELECT sum(x) FROM (SELECT unnest(token) AS x FROM tokens)"
    assert connection.sql(tokens).fetchall()[0][0] == pytest.approx(EXPECTED["token_sum"])
    there = set(old.glob("data/tokens/**/*.parquet"))
    assert there and all(file.read_bytes() == files[file] for file in there)
    assert verify(Warehouse(old), in_flight=0) == []


def test_nothing_is_stale_and_nothing_is_to_be_made_again(old: Path) -> None:
    kept = {s: {o.commit.key for o in some} for s, some in old_commits(Disk(old)).items()}
    upgrade(str(old))
    store = Warehouse(old)
    assert store.connect().sql("SELECT * FROM commits WHERE stale").fetchall() == []
    run = find_run(store, None)
    (tracks,) = run.track_sets
    assert tracks.weights is None and tracks.sources == "grid+boxes"
    texts = store.read("search_references", store.current("search_references").values())
    about = Searched(run, tuple(texts.sort_by("position")["text"].to_pylist()))
    subjects: dict[Any, Any] = {LABEL: run.recipe, stages.EVALUATE: run, SEARCH: about}
    for stage in (DETECT, PRECOMPUTE, BOX_TRACKS, LABEL, stages.EVALUATE, SEARCH):
        current = store.current(stage.name)
        assert {key.track_set for key in current} == {tracks.name}
        assert {key.of(track_set="") for key in current} == kept[stage.name]
        plan = Plan(stage, store, list(current), subjects.get(stage, tracks))
        raised = stage.version > VERSIONS[stage.name]
        assert set(plan.missing()) == (set(current) if raised else set()), stage.name
    assert len(score_plan(store, run, "demo", "valid_u", tracks.name).wanted) == 4
    for split in ("train", "valid_u"):
        assert tracks_for(store, "demo", split) == next(iter(run.track_sets))
        assert run.tracks_of(store, "demo", split).name == tracks.name


def test_again_changes_nothing(old: Path) -> None:
    upgrade(str(old))
    before = {file: file.read_bytes() for file in old.rglob("*") if file.is_file()}
    assert upgrade(str(old)) == 0
    assert {file: file.read_bytes() for file in old.rglob("*") if file.is_file()} == before
    assert not (old / "commits").exists()


class Killed(BaseException):
    """Nothing cleans up after it."""


def test_a_kill_leaves_it_whole_and_the_same_command_goes_on(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each write and deletion in turn, each time one later than the time before."""
    expected = old_commits(Disk(old))
    left = 0

    def killing(change: Callable) -> Callable:
        def changing(*arguments: Any) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            change(*arguments)

        return changing

    monkeypatch.setattr(Disk, "write", killing(Disk.write))
    monkeypatch.setattr(Disk, "delete", killing(Disk.delete))
    kills = 0
    for attempt in range(1000):
        left = attempt
        try:
            upgrade(str(old))
            break
        except Killed:
            kills += 1
        left = 1000
        if json.loads((old / "warehouse.json").read_text()) == {"format": 2}:
            assert old_commits(Disk(old)) == expected
            paths = {p for some in expected.values() for o in some for p in o.commit.paths}
            assert Disk(old).existing(paths) == paths
        else:
            store = Warehouse(old)
            assert sum(len(store.current(stage)) for stage in expected) == COMMITS + 4
    assert kills > 20
    monkeypatch.undo()
    store = Warehouse(old)
    for table, count in ROWS.items():
        rows = store.connect().sql(f"SELECT count(*) FROM {table}").fetchall()
        assert rows == [(count,)], table


def test_what_is_written_meanwhile_is_noticed(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An earlier version that had opened the warehouse before publishes on."""
    expected = old_commits(Disk(published))
    record = records(published, "label")[0]
    late = record.with_name(record.name.replace(".00000001.", ".00000002."))
    finish = Upgraded.finish

    def finish_late(store: Upgraded) -> None:
        shutil.copyfile(record, late)
        finish(store)

    with monkeypatch.context() as writing:
        writing.setattr(Upgraded, "finish", finish_late)
        with pytest.raises(WarehouseError, match=r"something else writes .*Nothing was changed"):
            upgrade(str(published))
    assert late.exists()
    late.unlink()
    assert old_commits(Disk(published)) == expected
    assert upgrade(str(published)) == COMMITS


def test_what_is_written_after_the_upgrade_stays(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = records(published, "label")[0]
    late = record.with_name(record.name.replace(".00000001.", ".00000002."))
    finish = Upgraded.finish

    def finish_early(store: Upgraded) -> None:
        finish(store)
        shutil.copyfile(record, late)
        later = (published / "warehouse.json").stat().st_mtime + 1
        os.utime(late, (later, later))

    monkeypatch.setattr(Upgraded, "finish", finish_early)
    with pytest.raises(WarehouseError, match=f"after its upgrade: commits/label/.*{late.name}"):
        upgrade(str(published))
    assert records(published, "label") == [late]
    assert verify(Warehouse(published), in_flight=0) == []


def test_of_two_upgrades_at_once_the_one_that_started_last_finishes(
    published: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Upgraded.finish

    def finish_after_another_has_started(store: Upgraded) -> None:
        Upgraded(published).start()
        finish(store)

    with monkeypatch.context() as other:
        other.setattr(Upgraded, "finish", finish_after_another_has_started)
        with pytest.raises(WarehouseError, match="something else writes"):
            upgrade(str(published))
    late = Upgraded(published)
    assert upgrade(str(published)) == COMMITS
    with pytest.raises(WarehouseError, match="another command has upgraded"):
        late.start()
    assert sum(map(len, map(Warehouse(published).current, VERSIONS))) > 20


def test_files_of_others_are_left(published: Path) -> None:
    """And what a record names that is no file of a warehouse."""
    others = [
        published / "commits" / "notes.txt",
        published / "records" / "label" / "mine.json",
        published / "data" / "sales" / "2024.parquet",
    ]
    for file in others:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")
    record = records(published, "label")[0]
    found = json.loads(record.read_text())
    found["files"]["pseudo_labels"]["path"] = "data/sales/2024.parquet"
    earlier = record.name.replace(".00000001.", ".00000000.")
    record.with_name(earlier).write_text(json.dumps(found | {"generation": 0}))
    upgrade(str(published))
    assert all(file.read_text() == "mine" for file in others)
    assert [file for file in published.glob("commits/**/*") if file.is_file()] == others[:1]


def test_unknown_settings_are_asked_for(published: Path) -> None:
    for record in records(published, "label"):
        rewrite(record, parts={"threshold": digest(0.65)})
    before = {file: file.read_bytes() for file in published.rglob("*") if file.is_file()}
    with pytest.raises(WarehouseError, match=r"pseudo-labels of demo/.*--set label_threshold="):
        upgrade(str(published))
    assert all(file.read_bytes() == content for file, content in before.items())
    upgrade(str(published), changes=["label_threshold=0.9", "label_threshold=0.65"])
    store = Warehouse(published)
    settings = "SELECT DISTINCT settings FROM commits WHERE stage = 'label'"
    ((found,),) = store.connect().sql(settings).fetchall()
    assert json.loads(found) == {"threshold": 0.65, "empty_frames": "count"}


def test_unknown_tracks_are_asked_for(published: Path) -> None:
    for record in records(published, "precompute"):
        rewrite(record, parts={"settings": digest("others")})
    with pytest.raises(WarehouseError, match=r"the tracks of \d videos of demo/.*extraction.FIELD"):
        upgrade(str(published))


def test_known_weights_are_named(published: Path, tmp_path: Path) -> None:
    """And the set is gone on with, though its precision is not known."""
    identity = checkpoint_identity("demo")
    for record in records(published, "precompute"):
        rewrite(record, parts={"weights": digest(identity)})
    file = tmp_path / "mine.pt"
    for suffix in (".pt", ".yaml"):
        shutil.copyfile(DEMO_CHECKPOINT.with_suffix(suffix), file.with_suffix(suffix))
    upgrade(str(published), checkpoints=[str(file)])
    store = Warehouse(published)
    (known,) = sets_of(store, "demo", "train").values()
    assert (known.checkpoint, known.weights) == (str(file), identity)
    asked = known.of(known.as_known() | {"precision": "float32", "known_as": "", "checkpoint": ""})
    assert asked.name != known.name
    assert continued(store, "demo", "train", asked) == known
    other = known.of(asked.as_known() | {"known_as": "", "corruption": "motion_blur-1"})
    assert continued(store, "demo", "train", other) == other


def test_other_weights_are_another_set(published: Path) -> None:
    """Weights that are not known are told apart all the same."""
    for record in records(published, "precompute")[:2]:
        rewrite(record, parts={"weights": digest("others")})
    upgrade(str(published))
    store = Warehouse(published)
    sets = {name: s for split in ("train", "valid_u") for name, s in
            sets_of(store, "demo", split).items()}  # fmt: skip
    one, other = sets.values()
    assert one.weights is other.weights is None and one.tokens != other.tokens
    assert len(store.current("precompute", track_set=one.name)) in (2, 7)
    assert store.connect().sql("SELECT * FROM commits WHERE stale").fetchall() == []


def test_what_was_replaced_before_is_stale(published: Path) -> None:
    record = records(published, "label")[0]
    rewrite(record, parts={"tracks": digest("others")})
    video = json.loads(record.read_text())["key"]["video_id"]
    upgrade(str(published))
    store = Warehouse(published)
    stale = "SELECT stage, video_id FROM commits WHERE stale"
    assert store.connect().sql(stale).fetchall() == [("label", video)]
    split = video.rpartition("_")[0]
    plan = label_plan(store, "demo", split, tracks_for(store, "demo", split).name,
                      find_run(store, None).recipe)  # fmt: skip
    assert video in {key.video_id for key in plan.missing()}


def test_failures_stay(published: Path) -> None:
    for stage, record in (("precompute", "train_0000"), ("ingest", "new")):
        found = json.loads(records(published, stage)[0].read_text())
        key = Key(dataset="demo", split="train", video_id=record)
        found |= {"key": {"dataset": "demo", "split": "train", "video_id": record}, "files": {}}
        found |= {"status": "failed", "error": "ValueError: broken", "generation": 9}
        name = f"{key.slug}.00000009.{found['fingerprint']}.failed.0-{'0' * 16}.json"
        folder = published / "commits" / stage / key.slug[-16:-14]
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(found))
    upgrade(str(published))
    store = Warehouse(published)
    failed = "SELECT stage, video_id, error FROM commits WHERE status = 'failed' ORDER BY ALL"
    assert store.connect().sql(failed).fetchall() == [
        ("ingest", "new", "ValueError: broken"),
        ("precompute", "train_0000", "ValueError: broken"),
    ]
    name = tracks_for(store, "demo", "train").name
    assert "train_0000" in {key.video_id for key in store.current("precompute", track_set=name)}


def test_damaged_rows_are_said_and_nothing_is_changed(published: Path) -> None:
    file = next(published.glob("data/videos/**/*.parquet"))
    file.write_bytes(b"PAR1")
    with pytest.raises(WarehouseError, match="Nothing was changed"):
        upgrade(str(published))
    assert open_storage(published).read("warehouse.json") == b'{"format": 2}'


def test_settings_in_names_of_splits_and_of_version_0_2_0_are_known() -> None:
    known = candidates_of([], ["valid_u@points_per_side=5,stride=8", "x@boxes=true"])
    for recipe in WRITTEN:
        grid = replace(recipe.extraction.grid, points_per_side=5, stride=8)
        for extraction in (recipe.extraction, replace(recipe.extraction, grid=grid)):
            for truth in (False, True):
                made = replace(extraction, ground_truth=truth)
                found = known.boxes(digest(extraction_in_format_2(made)))
                assert found and found.extraction == made
    as_0_2_0_wrote_it = (
        '{"batch":4,"boxes":{"max_tracks":16,"shared":true,"stability":0.85},"duplicate_iou":0.7,'
        '"grid":{"box_nms":0.7,"part_overlap":0.7,"points_per_side":10,"predicted_iou":0.75,'
        '"stability":0.85,"stride":4},"ground_truth":false,"max_tracks":16,"merged":true}'
    )
    assert digest(json.loads(as_0_2_0_wrote_it)) == "eaac03269de8"  # of the box tracks there
    assert known.boxes("eaac03269de8") and known.grid("03ee67932771")
    assert known.grid(digest("others")) is None
    assert known.labels(digest(0.5), digest("skip")) and not known.labels(
        digest(0.6), digest("skip")
    )


def test_other_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "warehouse.json").write_text('{"format": 1}')
    with pytest.raises(WarehouseError, match="format 1; this version upgrades format 2 to 3"):
        upgrade(str(tmp_path))
    with pytest.raises(WarehouseError, match="is not a warehouse"):
        upgrade(str(tmp_path / "none"))
