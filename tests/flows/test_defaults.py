"""Which warehouse and which recipe commands take when nobody names one."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.baseline import baseline_settings
from flows.checks import recipe_to_use
from flows.cli import app
from flows.commands.common import HERE
from sola_model.recipes import DEMO
from tasks.runs import last_recipe
from tasks.track_sets import remember, track_set_of
from tests.untrained import publish_untrained
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

ROOT = Path(__file__).parents[2]


def test_the_default_warehouse_is_no_folder_of_the_source() -> None:
    assert not (ROOT / HERE).is_dir() or not list((ROOT / HERE).glob("*.py"))
    assert f"{HERE}/" in (ROOT / ".gitignore").read_text().split()
    for name in ("README.md", "prefect.yaml"):
        assert HERE in (ROOT / name).read_text()
    assert "warehouse: warehouse" not in (ROOT / "prefect.yaml").read_text()


@pytest.mark.parametrize("wrong", [["--split", "none"], ["--root", "none"], ["--sam2", "none"]])
def test_what_is_refused_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: list[str]
) -> None:
    write_dataset(tmp_path / "data", {"train": 1}, frames=4)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    line = ["precompute", "--root", "data", "--dataset", "demo", "--recipe", "demo", *wrong]
    assert CliRunner().invoke(app, line).exit_code == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_can_be_no_warehouse_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "w"):
        with pytest.raises(ValueError, match=r"no warehouse and not empty|cannot be written to"):
            Warehouse.check_place(place)
    assert Warehouse.check_place(tmp_path / "new" / "w") is False
    assert Warehouse.check_place(Warehouse.create(tmp_path / "new" / "w").url) is True
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "new"]


def test_a_warehouse_remembers_the_recipe_of_its_newest_tracks_or_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = str(tmp_path / "w")
    assert recipe_to_use(place, None) == "release"  # there is no warehouse yet
    store = Warehouse.create(place)
    assert (last_recipe(store), recipe_to_use(place, None)) == (None, "release")
    assert capsys.readouterr().err == ""
    remember(store, "demo", "train", track_set_of(DEMO), "demo+max_tracks=2")
    assert recipe_to_use(place, None) == "demo"
    assert "recipe demo, last used in this warehouse" in capsys.readouterr().err
    assert recipe_to_use(place, "paper") == "paper"
    assert capsys.readouterr().err == ""
    publish_untrained(store, replace(DEMO, name="demo-large+epochs=2"))
    assert last_recipe(store) == "demo-large"
    remember(store, "demo", "train", replace(track_set_of(DEMO), corruption="fog-3"), "demo")
    assert last_recipe(store) == "demo"
    remember(store, "folder", "segment", replace(track_set_of(DEMO), corruption="fog-2"))
    assert last_recipe(store) == "demo"  # of `sola segment`, whose settings are a run's
    publish_untrained(store, replace(DEMO, name="my own"), "mine")
    assert last_recipe(store) == "demo"  # no recipe that can be named


def test_embedded_models_come_with_their_recipe(tmp_path: Path) -> None:
    store = Warehouse.create(tmp_path / "w")
    assert recipe_to_use(store.url, None, "demo") == "demo"
    publish_untrained(store, replace(DEMO, name="release"))
    assert recipe_to_use(store.url, None, "demo") == "demo"
    assert recipe_to_use(store.url, "release", "demo") == "release"
    publish_untrained(store, replace(DEMO, name="demo-release"), "b")
    assert recipe_to_use(store.url, None, "demo") == "demo-release"
    assert recipe_to_use(store.url, None, "sam2_hiera_large") == "release"
    assert baseline_settings("demo", None, None).detector == "demo"
    assert baseline_settings("release", None, None).detector != "demo"
