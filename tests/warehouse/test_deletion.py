"""What is deleted is proven to be damaged, or garbage of our own: never what was not understood."""

import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.warehouse.conftest import new_bucket
from tests.warehouse.flaky_s3 import flaky_s3
from tests.warehouse.samples import KEY, labels, paths, rewrite_record, stage_tables
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.collect import collect_garbage, find_garbage
from warehouse.compact import compact
from warehouse.schemas import DamagedError, NewerError
from warehouse.verify import delete_damaged, verify

OTHER = Key("mevis", "train", "v2")
RUN = Key(run_id="run")
UUID = "0" * 32
ROUNDS = 200


def fill(store: Warehouse, folder: Path) -> None:
    """Labels, one published and two merged, and a run with weights."""
    for key in (KEY, OTHER):
        store.publish("label", key, "a", labels(0.5, key))
    compact(store)
    store.publish("label", KEY, "b", labels(0.75))
    (folder / "best").mkdir()
    (folder / "best" / "selector.json").write_text("{}")
    checksums = store.put_folder("selectors/run/best", folder / "best")
    store.publish("train", RUN, "a", stage_tables("train", RUN), checksums)


def contents(store: Warehouse) -> dict[str, bytes]:
    return {path: store.storage.read(path) for path in paths(store)}


ERRORS = [OSError(code, os.strerror(code)) for code in (errno.EACCES, errno.EMFILE, errno.EIO)]
ERRORS += [OSError("AWS Error SLOW_DOWN during GetObject operation")]  # as pyarrow has it


@pytest.mark.parametrize("error", ERRORS, ids=str)
def test_what_cannot_be_read_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """A random tenth of the reads fails."""
    place = Warehouse.create(tmp_path / "w")
    fill(place, tmp_path)
    before, seen = contents(place), set()
    for seed in range(ROUNDS // len(ERRORS)):
        store, chance = Warehouse(place.url), random.Random(seed)
        read = store.storage.read

        def failing(path: str, read: Callable = read, chance: random.Random = chance) -> bytes:
            if chance.random() < 0.1:
                raise error
            return read(path)

        monkeypatch.setattr(store.storage, "read", failing)
        problems = verify(store)
        seen.update((problem.mend, problem.error) for problem in problems)
        delete_damaged(store, problems)
    assert contents(place) == before
    assert {mend for mend, _ in seen} == {"retry"}
    assert all("cannot be read" in said and str(error) in said for _, said in seen)


def test_what_an_object_store_refuses_is_not_deleted(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("warehouse.storage.FIRST_WAIT", 0.0)
    with flaky_s3(seed=1) as server:
        place = f"s3://{new_bucket()}/w?{server.url_options}"
        store = Warehouse.create(place)
        fill(store, tmp_path)
        before = contents(store)
        monkeypatch.setattr("warehouse.storage.ATTEMPTS", 1)
        read, refused = store.storage.read, set()

        def failing(path: str) -> bytes:
            server.rate = 1.0 if path.endswith((".json", ".parquet")) else 0.0
            try:
                return read(path)
            finally:
                server.rate = 0.0

        monkeypatch.setattr(store.storage, "read", failing)
        for _ in range(2):
            problems = verify(store)
            refused.update(problem.mend for problem in problems)
            delete_damaged(store, problems)
        assert refused == {"retry"}
        assert contents(Warehouse(place)) == before


def test_reads_that_differ_prove_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    """A cable, a controller or a cut connection: the bytes are others each time."""
    fill(warehouse, tmp_path)
    before, chance, read = contents(warehouse), random.Random(0), warehouse.storage.read
    warehouse.storage.read = lambda path: read(path) + chance.randbytes(4)
    problems = verify(warehouse)
    assert {problem.mend for problem in problems} == {"retry"}
    delete_damaged(warehouse, problems)
    assert contents(Warehouse(warehouse.url)) == before


def test_a_newer_version_is_read_and_left_alone(warehouse: Warehouse) -> None:
    """Its columns, and fields of its records: they are passed over, never deleted or merged."""
    commit = warehouse.publish("label", KEY, "a", labels(0.5))
    (path,) = (file.path for file in commit.files.values())
    table = pq.read_table(pa.BufferReader(warehouse.storage.read(path)))
    wider = table.append_column(pa.field("extra", pa.float32()), pa.array([1.0], pa.float32()))
    with pytest.MonkeyPatch.context() as newer:
        newer.setitem(TABLES, "pseudo_labels", wider.schema)
        warehouse.publish("label", OTHER, "b", {"pseudo_labels": labels_with(wider.schema)})
    for record in paths(warehouse, "records"):
        fields = json.loads(warehouse.storage.read(record))
        fields["host"] = "gpu7"
        fields["making"]["watts"] = 300
        fields["files"]["pseudo_labels"]["codec"] = "zstd"
        rewrite_record(warehouse, record, fields)
    store, before = Warehouse(warehouse.url), contents(warehouse)
    assert store.read("pseudo_labels", store.current("label").values()).num_rows == 2
    with store.connect() as connection:
        assert connection.sql("SELECT count(*) FROM pseudo_labels").fetchall() == [(2,)]
    assert verify(store, 0) == []
    assert compact(store).commits == 0
    assert collect_garbage(store, 0).files == []
    assert contents(store) == before


def test_a_flipped_bit_in_a_field_of_a_newer_version_is_noticed(warehouse: Warehouse) -> None:
    warehouse.publish("label", KEY, "a", labels(0.5))
    (record,) = paths(warehouse, "records")
    fields = json.loads(warehouse.storage.read(record)) | {"host": "gpu7"}
    record = rewrite_record(warehouse, record, fields)
    assert list(Warehouse(warehouse.url).current("label")) == [KEY]
    flipped = warehouse.storage.read(record).replace(b"gpu7", b"gpu6")
    warehouse.storage.write(record, flipped)
    with pytest.raises(DamagedError, match="its checksum is not"):
        Warehouse(warehouse.url).current("label")
    (problem,) = verify(warehouse, 0)
    assert (problem.path, problem.mend) == (record, "delete")


def labels_with(schema: pa.Schema) -> pa.Table:
    row = labels(0.5, OTHER)["pseudo_labels"].to_pylist()[0]
    return pa.Table.from_pylist([row | {"extra": 1.0}], schema=schema)


def test_what_only_a_newer_version_knows_is_said(warehouse: Warehouse) -> None:
    warehouse.publish("label", KEY, "a", labels(0.5))
    strange = f"data/new_table/mevis/{UUID}.parquet", f"records/new_stage/00/{UUID}.json"
    for path in strange:
        warehouse.storage.write(path, b"")
    problems = verify(warehouse, 0)
    assert sorted((p.path, p.mend) for p in problems) == [(p, "newer") for p in sorted(strange)]
    delete_damaged(warehouse, problems)
    with pytest.raises(WarehouseError, match="Collect garbage with the version that wrote"):
        collect_garbage(warehouse, 0)
    assert set(strange) < set(paths(warehouse))


def test_a_key_of_a_newer_version_is_refused(warehouse: Warehouse) -> None:
    warehouse.publish("label", KEY, "a", labels(0.5))
    (record,) = paths(warehouse, "records")
    fields = json.loads(warehouse.storage.read(record))
    fields["key"]["camera"] = "2"
    rewrite_record(warehouse, record, fields)
    with pytest.raises(NewerError, match=r"newer version: its key has camera"):
        Warehouse(warehouse.url).current("label")
    assert [p.mend for p in verify(Warehouse(warehouse.url), 0)] == ["newer"]


@pytest.mark.parametrize("target", ["../outside.parquet", "{folder}/outside.parquet"])
@pytest.mark.parametrize("proven", [True, False])
def test_records_name_nothing_outside(tmp_path: Path, target: str, proven: bool) -> None:
    """Whether the record has a checksum that fits, as a hostile one has, or one that does not."""
    store, outside = Warehouse.create(tmp_path / "w"), tmp_path / "outside.parquet"
    outside.write_bytes(b"precious")
    store.publish("label", KEY, "a", labels(0.5))
    (record,) = paths(store, "records")
    fields = json.loads(store.storage.read(record))
    fields["files"]["pseudo_labels"]["path"] = target.format(folder=tmp_path)
    if proven:
        rewrite_record(store, record, fields)
    else:
        store.storage.write(record, json.dumps(fields).encode())
    store = Warehouse(store.url)
    for read in (store.connect, lambda: store.current("label"), lambda: find_garbage(store, 0)):
        with pytest.raises(WarehouseError, match=r"is not in the warehouse|is damaged"):
            read()
    problems = verify(store, 0)
    assert [problem.mend for problem in problems] == ["look" if proven else "delete"]
    delete_damaged(store, problems)
    assert outside.read_bytes() == b"precious"
    assert len(paths(store, "data")) == 1


def test_a_wrong_checksum_in_a_record_deletes_no_data(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record of format 2 had no checksum: the upgrade takes over what is damaged in it.

    With a CRC-32 in the file's name, as today, and without, as in format 2; there two records that
    disagree prove nothing of a file that they share.
    """
    for key, crc in ((KEY, True), (OTHER, False)):
        with monkeypatch.context() as earlier:
            if not crc:
                earlier.setattr("warehouse.data_files.crc_of", lambda content: "0" * 32)
            warehouse.publish("label", key, "a", labels(0.5, key))
    one, other = (warehouse.current("label")[key].files["pseudo_labels"] for key in (KEY, OTHER))
    for record in paths(warehouse, "records"):
        fields = json.loads(warehouse.storage.read(record))
        fields["files"]["pseudo_labels"]["file_sha256"] = "0" * 64
        rewrite_record(warehouse, record, fields)
    store = Warehouse(warehouse.url)
    problems = verify(store, 0)
    assert [(problem.path, problem.mend) for problem in problems] == [
        (path, "look") for path in sorted([one.path, other.path])
    ]
    delete_damaged(store, problems)
    assert store.storage.existing([one.path, other.path]) == {one.path, other.path}


def test_a_record_without_a_checksum_is_none(warehouse: Warehouse) -> None:
    """Every version that writes this format gives one."""
    commit = warehouse.publish("label", KEY, "a", labels(0.5))
    (record,) = paths(warehouse, "records")
    strange = record.replace(commit.checksum, "0" * 16)
    warehouse.storage.write(strange, warehouse.storage.read(record))
    warehouse.storage.delete(record)
    store = Warehouse(warehouse.url)
    assert store.current("label") == {}
    assert (strange, "look") in {(p.path, p.mend) for p in verify(store, 0)}
    with pytest.raises(WarehouseError, match="which this version does not know"):
        collect_garbage(store, 0)
    assert store.storage.existing(commit.paths) == set(commit.paths)


def test_a_folder_with_something_in_it_is_no_new_warehouse(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(WarehouseError, match=r"not empty: it has notes.txt. Give a new or empty"):
        Warehouse.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / f".{UUID}.tmp").write_text("")  # another process is creating it
    assert Warehouse.create(tmp_path / "w").url == Warehouse.create(tmp_path / "w").url


def test_an_object_store_with_something_in_it_is_no_new_warehouse(s3_endpoint: str) -> None:
    place = f"s3://{new_bucket()}"
    Warehouse.create(f"{place}/a/b")
    with pytest.raises(WarehouseError, match="not empty: it has b"):
        Warehouse.create(f"{place}/a")


FOREIGN = (
    "data/sales/2024.parquet",
    "data/sales/mevis/train/2024.parquet",
    "data/masks/notes.parquet",
    "data/raw/.part.tmp",
    "selectors/notes.txt",
    "selectors/mine/a.py",
    "checkpoints/ok.pt",
    "cache/x",
    ".editor.tmp",
)


def test_files_of_others_are_never_collected(tmp_path: Path) -> None:
    """A warehouse of an earlier version may lie in a folder that had other content."""
    store = Warehouse.create(tmp_path / "w")
    store.publish("label", KEY, "a", labels(0.5))
    for path in FOREIGN:
        store.storage.write(path, b"mine")
        os.utime(store.root / path, (1e9, 1e9))
    assert collect_garbage(store, 0).files == []
    problems = verify(store, 0)
    assert {problem.mend for problem in problems} <= {"look", "newer"}
    delete_damaged(store, problems)
    assert set(FOREIGN) < set(paths(store))


def test_nothing_is_deleted_through_a_link(tmp_path: Path) -> None:
    mine, other = (Warehouse.create(tmp_path / name) for name in ("mine", "other"))
    for store in (mine, other):
        store.publish("label", KEY, "a", labels(0.5))
    before = contents(other)
    (mine.root / "data" / "masks").mkdir()
    (mine.root / "data" / "masks" / "theirs").symlink_to(other.root / "data/pseudo_labels/mevis")
    (path,) = (file.path for file in other.current("label")[KEY].files.values())
    (mine.root / "data" / "masks" / Path(path).name).symlink_to(other.root / path)
    assert collect_garbage(mine, 0).files == []
    assert {problem.mend for problem in verify(mine, 0)} == {"look"}
    with pytest.raises(WarehouseError, match="reached through a link"):
        mine.storage.delete(f"data/masks/{Path(path).name}")
    assert contents(other) == before


def test_damage_behind_a_link_is_left(tmp_path: Path) -> None:
    """A data file that was moved to another disk is read, and checked, but not deleted."""
    store = Warehouse.create(tmp_path / "w")
    (path,) = (f.path for f in store.publish("label", KEY, "a", labels(0.5)).files.values())
    moved = tmp_path / "other-disk.parquet"
    (store.root / path).rename(moved)
    (store.root / path).symlink_to(moved)
    assert verify(store, 0) == []
    moved.write_bytes(b"PAR1")
    (problem,) = verify(store, 0)
    assert (problem.path, problem.mend) == (path, "look")
    with pytest.raises(DamagedError):
        Warehouse(store.url).read("pseudo_labels", store.current("label").values())


def test_weights_that_are_about_to_be_published_are_kept(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    """Garbage collection has listed what a killed training left, and another one ends."""

    def put(content: str) -> dict[str, str]:
        folder = tmp_path / content / "last"
        folder.mkdir(parents=True)
        (folder / "selector.safetensors").write_text(content)
        return warehouse.put_folder("selectors/run", tmp_path / content)

    put("killed")
    garbage = find_garbage(warehouse, 0)
    assert len(garbage.weights) == 1
    checksums = put("finished")
    warehouse.publish("train", RUN, "a", stage_tables("train", RUN), checksums)
    for file in garbage.files:
        warehouse.storage.delete(file.path)
    assert verify(warehouse, 0) == []
    folder = Warehouse(warehouse.url).local_copy("selectors/run/last")
    assert (folder / "selector.safetensors").read_text() == "finished"
    assert warehouse.missing("train", {RUN: "a"}) == []
    assert collect_garbage(warehouse, 0).files == []
    before = paths(warehouse)
    assert warehouse.put_folder("selectors/run", tmp_path / "finished") == checksums
    assert paths(warehouse) == before


def test_weights_that_vanish_are_not_published(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "selector.json").write_text("{}")
    checksums = warehouse.put_folder("selectors/run", tmp_path)
    warehouse.storage.delete("selectors/run/selector.json")
    with pytest.raises(WarehouseError, match="vanish while they are published"):
        warehouse.publish("train", RUN, "a", stage_tables("train", RUN), checksums)
