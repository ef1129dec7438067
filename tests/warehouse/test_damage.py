"""Flipped bits are noticed before a wrong row or weight comes out, and nothing sound is deleted.

Everything is read in process, as commands do: SQL, `read`, weights, and what is missing.
"""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.warehouse.samples import one_row, paths, rewrite_record, stage_tables
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.compact import compact
from warehouse.schemas import DamagedError
from warehouse.verify import delete_damaged, verify

FLIPS = 1000
ASK_EVERY = 9  # SQL and `verify` cost more; it has no factor in common with the number of kinds
KEYS = [Key("mevis", "train", f"v{index}") for index in range(3)]
RUN = Key(run_id="run")
WEIGHTS = "selectors/run/best"
TABLES_OF = {"label": "pseudo_labels", "precompute": "tokens"}


def tokens(key: Key) -> pa.Table:
    """Three tokens of 16 numbers."""
    chance = np.random.default_rng(0)
    row = one_row("tokens", key).to_pylist()[0]
    rows = [row | {"track_id": i, "token": chance.normal(size=16).tolist()} for i in range(3)]
    return pa.Table.from_pylist(rows, schema=TABLES["tokens"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """Labels and tracks of three videos, of which two are merged, and a run with weights."""
    folder = tmp_path_factory.mktemp("damage")
    store = Warehouse.create(folder / "w")
    for key in KEYS:
        if key == KEYS[2]:
            compact(store)
        store.publish("label", key, "a", stage_tables("label", key))
        tables = stage_tables("precompute", key) | {"tokens": tokens(key)}
        store.publish("precompute", key, "a", tables)
    (folder / "best").mkdir()
    (folder / "best" / "selector.json").write_text('{"token_dim": 16}')
    (folder / "best" / "selector.safetensors").write_bytes(bytes(range(200)))
    checksums = store.put_folder(WEIGHTS, folder / "best")
    store.publish("train", RUN, "a", stage_tables("train", RUN), checksums)
    return store


def answers(place: str, sql: bool = True) -> dict[str, object]:
    """What each way to read a warehouse gives, or the error it ends in."""
    found: dict[str, object] = {}
    store = Warehouse(place)

    def weights() -> list[bytes]:
        folder = store.local_copy(WEIGHTS)
        return [(folder / f"selector.{kind}").read_bytes() for kind in ("json", "safetensors")]

    ways = {"weights": weights}
    for stage, table in TABLES_OF.items():
        ways[f"read {table}"] = lambda s=stage, t=table: [
            store.read(t, [c]).to_pylist() for c in store.current(s).values()
        ]
    for name, way in ways.items():
        try:
            found[name] = way()
        except WarehouseError as error:
            found[name] = error
    if not sql:
        return found
    try:
        with store.connect() as connection:
            for table in TABLES_OF.values():
                try:
                    found[f"sql {table}"] = connection.sql(f"FROM {table} ORDER BY ALL").fetchall()
                except Exception as error:
                    assert "is damaged" in str(error)
                    found[f"sql {table}"] = error
    except WarehouseError as error:
        found["connect"] = error
    return found


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def test_every_flipped_bit_is_noticed(store: Warehouse) -> None:
    """Each flip is answered with the sound rows or an error, and deletes at most its own file."""
    chance, good = random.Random(0), answers(store.url)
    assert not [answer for answer in good.values() if isinstance(answer, Exception)]
    kinds = ("data/pseudo_labels", "data/tokens", "records", "selectors")
    files = {kind: paths(store, kind) for kind in kinds}
    seen: Counter[str] = Counter()
    for number in range(FLIPS):
        kind = kinds[number % len(kinds)]
        path = chance.choice(files[kind])
        content = store.storage.read(path)
        (store.root / path).write_bytes(flipped(content, chance))
        found = answers(store.url, sql=number % ASK_EVERY == 0)
        for way, answer in found.items():
            assert isinstance(answer, Exception) or answer == good[way], (path, way)
        errors = [answer for answer in found.values() if isinstance(answer, Exception)]
        seen[kind] += bool(errors)
        if number % ASK_EVERY == 0:
            problems = verify(Warehouse(store.url))
            assert {problem.path for problem in problems} <= {path}
            assert problems or not errors
            before = set(paths(store))
            delete_damaged(store, problems)
            assert before - set(paths(store)) <= {path}
        (store.root / path).write_bytes(content)
    # Superseded files are not read, and a bit of a record may say nothing.
    assert all(count > FLIPS / len(kinds) / 4 for count in seen.values())
    assert verify(Warehouse(store.url)) == []


def test_a_damaged_file_is_named_with_what_mends_it(store: Warehouse) -> None:
    commit = store.current("label")[KEYS[2]]
    path = commit.files["pseudo_labels"].path
    content = store.storage.read(path)
    (store.root / path).write_bytes(content[:-1])
    message = rf"{path} is damaged: its checksum .* `sola verify --warehouse .*--delete-damaged`"
    try:
        with pytest.raises(DamagedError, match=message):
            Warehouse(store.url).read("pseudo_labels", [commit])
        with Warehouse(store.url).connect(checked=False) as connection:
            assert connection.sql("SELECT count(*) FROM masks").fetchall() == [(3,)]
    finally:
        (store.root / path).write_bytes(content)


def test_damage_is_not_retried(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = warehouse.publish("label", KEYS[0], "a", stage_tables("label", KEYS[0]))
    path = commit.files["pseudo_labels"].path
    warehouse.storage.write(path, b"PAR1")
    waits: list[float] = []
    monkeypatch.setattr("warehouse.storage.time.sleep", waits.append)
    with pytest.raises(DamagedError):
        Warehouse(warehouse.url).read("pseudo_labels", [commit])
    assert waits == []


def test_copies_of_weights_are_checked(warehouse: Warehouse, tmp_path: Path) -> None:
    """Damage in the storage is not used; a damaged copy in the local cache is replaced."""
    file = tmp_path / "last" / "selector.safetensors"
    file.parent.mkdir()
    file.write_bytes(b"good")

    def train() -> None:
        checksums = warehouse.put_folder("selectors/run/last", file.parent)
        warehouse.publish("train", RUN, "a", stage_tables("train", RUN), checksums)

    def read() -> bytes:
        return (Warehouse(warehouse.url).local_copy("selectors/run/last") / file.name).read_bytes()

    train()
    path = "selectors/run/last/selector.safetensors"
    warehouse.storage.write(path, b"bad")
    with pytest.raises(DamagedError, match=rf"{path} is damaged"):
        read()
    delete_damaged(warehouse, verify(warehouse))
    assert warehouse.missing("train", {RUN: "a"}) == [RUN]
    train()
    assert read() == b"good"
    copy = warehouse.work_folder() / path
    copy.write_bytes(b"bad")
    if warehouse.storage.read(path) == b"good":  # an object store: the copy is one
        assert read() == b"good"
    else:
        with pytest.raises(DamagedError):
            read()


def test_files_of_format_2_are_checked(warehouse: Warehouse) -> None:
    """Their names have no CRC-32: they are checked with the checksums of the records."""
    commit = warehouse.publish("label", KEYS[0], "a", stage_tables("label", KEYS[0]))
    published = commit.files["pseudo_labels"].path
    path = f"{published.rpartition('-')[0]}.parquet"
    warehouse.storage.write(path, warehouse.storage.read(published))
    warehouse.storage.delete(published)
    (record,) = paths(warehouse, "records")
    fields = json.loads(warehouse.storage.read(record))
    fields["files"]["pseudo_labels"]["path"] = path
    rewrite_record(warehouse, record, fields)
    store = Warehouse(warehouse.url)
    assert store.read("pseudo_labels", store.current("label").values()).num_rows == 1
    assert verify(store, 0) == []
    warehouse.storage.write(path, b"PAR1")
    with pytest.raises(DamagedError):
        store.read("pseudo_labels", store.current("label").values())
    (problem,) = verify(Warehouse(warehouse.url))
    assert (problem.path, problem.mend) == (path, "delete")  # the record says its checksum twice
