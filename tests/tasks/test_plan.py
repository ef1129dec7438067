"""Plans: the fingerprint of a key is one, whether it is asked for alone or with many."""

from pathlib import Path
from typing import Any

import pytest

from tasks.stage import Plan, Stage, adopt
from tests.warehouse.samples import labels, stage_tables
from warehouse import Key, Warehouse
from warehouse.commits import ABSENT

INGEST = Stage(name="ingest", command="precompute")
DETECT = Stage(name="detect", command="precompute")
LABEL = Stage(
    name="label",
    command="label",
    reads=lambda _: {DETECT: ("detections",), INGEST: ("frames", "expressions")},
    optional=(DETECT,),
    settings=lambda subject: subject,
)
KEYS = [Key("demo", "train", f"v{n}") for n in range(4)]
SETTINGS = {"threshold": 0.5}


@pytest.fixture(params=[True, False], ids=["columns", "one by one"])
def store(request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Two videos with both inputs, one without detections, one that was not ingested."""
    monkeypatch.setattr("warehouse.planning.FEW", 0 if request.param else 1000)
    store = Warehouse.create(tmp_path)
    for key in KEYS[:3]:
        content = {"frames": f"frames of {key.video_id}"}
        store.publish("ingest", key, "a", stage_tables("ingest", key), contents=content)
    for key in KEYS[1:]:
        store.publish("detect", key, "a", stage_tables("detect", key))
    return store


def test_a_fingerprint_is_the_same_alone_and_with_others(store: Warehouse) -> None:
    plan = Plan(LABEL, store, KEYS, SETTINGS)
    assert list(plan.wanted) == KEYS[:3] == list(plan.missing())
    assert plan.keys.num_rows == 3
    for key in KEYS:
        alone = Plan(LABEL, store, [key], SETTINGS)
        assert plan.wanted.get(key) == alone.fingerprint(key) == alone.wanted.get(key)
    assert len(set(plan.wanted.values())) == 3
    absent = [[i.fingerprint == ABSENT for i in plan.inputs(key)].count(True) for key in KEYS[:3]]
    assert absent == [1, 0, 0]


def test_what_a_fingerprint_depends_on(store: Warehouse) -> None:
    """Contents, settings and version; not the fingerprints of what is read."""
    before = Plan(LABEL, store, KEYS, SETTINGS).wanted
    other = Plan(LABEL, store, KEYS, {"threshold": 0.6}).wanted
    assert all(before[key] != other[key] for key in before)
    for key, frames in zip(KEYS, ("frames of v0", "other frames"), strict=False):
        tables = stage_tables("ingest", key)
        store.publish("ingest", key, "b", tables, contents={"frames": frames})
    after = Plan(LABEL, store, KEYS, SETTINGS).wanted
    assert [before[key] == after[key] for key in KEYS[:3]] == [True, False, True]


def test_only_what_is_not_there_is_to_be_made(
    store: Warehouse,
) -> None:
    for key, named in Plan(LABEL, store, KEYS, SETTINGS).wanted.items():
        store.publish("label", key, named, labels(0.5, key))
    plan = Plan(LABEL, store, KEYS, SETTINGS)
    assert plan.missing() == [] and plan.to_make() == {}
    store.storage.delete(store.current("label")[KEYS[1]].paths[0])
    assert plan.to_make() == {KEYS[1]: plan.wanted[KEYS[1]]}


def test_data_of_another_split_with_the_same_inputs_is_adopted(store: Warehouse) -> None:
    same = Key("demo", "other", "v0")
    store.publish(
        "label", KEYS[0], Plan(LABEL, store, KEYS, SETTINGS).wanted[KEYS[0]], labels(0.5, KEYS[0])
    )
    commit = store.current("ingest")[KEYS[0]]
    store.log.append("ingest", same, "a", files=commit.files, contents=commit.contents)
    plan = Plan(LABEL, store, [same, KEYS[1]], SETTINGS)
    assert plan.missing() == [same, KEYS[1]]
    adopt(plan)
    assert plan.missing() == [KEYS[1]]
    assert store.read("pseudo_labels", [store.current("label")[same]])["split"].to_pylist() == [
        "other"
    ]
