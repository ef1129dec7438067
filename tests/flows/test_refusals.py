"""A wrong argument of a flow command is refused before anything slow is loaded or started.

Torch and Prefect are what takes seconds, and a server is started by Prefect: what has not imported
them has answered at once.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from sola_model.recipes import DEMO
from tasks.runs import find_run
from tasks.stages.ingest import ingest_split
from tests.tasks import stages
from tests.untrained import publish_untrained
from warehouse import Warehouse
from warehouse.demo_data import write_dataset

RECIPE = replace(DEMO, tau=0.01, extraction=replace(DEMO.extraction, max_tracks=2))
SLOW = ("torch", "prefect", "sam2", "transformers")
RUN_CASES = """
import json, sys
from typer.testing import CliRunner
from flows.cli import app
results = []
for case in json.load(sys.stdin):
    done = CliRunner().invoke(app, case)
    loaded = [name for name in {slow!r} if name in sys.modules]
    results.append([done.exit_code, done.output, loaded])
json.dump(results, sys.stdout)
"""

DEMO_SPLIT = ["--dataset", "demo", "--split", "valid_u"]
# Arguments that are right, but for the warehouse; those below are added, and the last one counts.
RIGHT = {
    "precompute": ["--root", "{data}", *DEMO_SPLIT, "--recipe", "demo"],
    "plan": ["--root", "{data}", *DEMO_SPLIT, "--recipe", "demo"],
    "label": [*DEMO_SPLIT, "--recipe", "demo"],
    "train": ["--dataset", "demo", "--split", "valid_u"],
    "evaluate": DEMO_SPLIT,
    "baseline": [*DEMO_SPLIT, "--recipe", "demo", "--detector", "demo"],
    "segment": ["{data}/valid_u/JPEGImages/valid_u_0000", "a bar", "--json", "{new}"],
    "search": ["a bar"],
    "experiment": ["--dataset", "demo", "--validation", "valid_u"],
    "demo": [],
    "label-export": [*DEMO_SPLIT, "--out", "{new}"],
    "submit": [*DEMO_SPLIT, "--out", "{new}"],
    "export": [*DEMO_SPLIT, "--out", "{new}"],
    "report": ["--dataset", "demo", "--out", "{new}"],
    "oracle": DEMO_SPLIT,
    "import-tracks": ["{data}/valid_u/mask_dict.json", *DEMO_SPLIT, "--recipe", "demo"],
}
OF_A_SPLIT = [
    (["--dataset", "nodata"], "nodata"),
    (["--split", "nosplit"], "nosplit"),
]
OF_A_RUN = [*OF_A_SPLIT, (["--run", "norun"], "there is no run norun")]
OF_TRACKS = [(["--tracks", "noset"], "noset")]
OF_A_RECIPE = [
    (["--recipe", "best"], "there is no recipe 'best'"),
    (["--set", "nosuch=1"], "nosuch"),
]
OF_SAM2 = [(["--sam2", "sam9"], "no SAM2 checkpoint file 'sam9'")]
OF_TRACKERS = [
    (["--set", "tracker=nosuch"], "there is no tracker 'nosuch'; valid are: sam2, sam2_video"),
    (["--set", "tracker=edgetam_video", "--sam2", "demo"], "'edgetam_video' cannot take 'demo'"),
]
OF_MODELS = [*OF_SAM2, (["--detector", "none/of/these"], "there is no detector")]
WRONG = {
    "precompute": [
        *OF_A_SPLIT,
        *OF_A_RECIPE,
        *OF_MODELS,
        *OF_TRACKERS,
        (["--root", "{data}/none"], "none: no such folder"),
        (["--dataset", "folder", "--root", "{data}/none.mp4"], "no such folder or file"),
        (["--dataset-name", "a/b"], "not usable as a file name"),
        (["--set", "label_threshold=0.6"], "does not use it"),
        (["--boxes", "{data}/none.csv"], "no such file"),
        (["--corruption", "rain-3"], "rain-3"),
        (["--shard", "3/2"], "there is no shard"),
    ],
    "plan": [
        *OF_A_SPLIT,
        *OF_A_RECIPE,
        *OF_MODELS,
        *OF_TRACKERS,
        (["--root", "{data}/none"], "none: no such folder"),
        (["--set", "label_threshold=0.6"], "does not use it"),
    ],
    "label": [*OF_A_SPLIT, *OF_A_RECIPE, *OF_TRACKS, (["--set", "tau=0.1"], "does not use it")],
    "train": [
        *OF_A_RECIPE,
        *OF_TRACKS,
        (["--dataset", "nodata"], "nodata"),
        (["--split", "nosplit", "--split", "again"], "give one split for all"),
        (["--from", "norun"], "there is no run norun"),
        (["--validation", "nosplit"], "nosplit"),
    ],
    "evaluate": [*OF_A_RUN, *OF_TRACKS],
    "baseline": [*OF_A_SPLIT, *OF_A_RECIPE, *OF_MODELS],
    "segment": [
        *OF_MODELS,
        (["--run", "norun"], "there is no run norun"),
        (["--json", "{data}/none/v.json"], "there is no folder"),
        (["--out", "{new}.avi"], "an .mp4 file"),
    ],
    "search": [
        *OF_A_RUN,
        *OF_TRACKS,
        (["--format", "xml"], "there is no format 'xml'"),
        (["--html", "{data}/none/p.html"], "there is no folder"),
    ],
    "experiment": [
        (["table9"], "there is no experiment table9"),
        *[(["table5b", *added], message) for added, message in (*OF_A_RECIPE, *OF_MODELS)],
        (["table5b", "--dataset", "nodata"], "nodata"),
        (["table5b", "--root", "{data}", "--split", "nosplit"], "nosplit"),
        (["table5b", "--root", "{data}/none"], "no such folder"),
        (["counterfactual", "--run", "norun"], "there is no run norun"),
    ],
    "demo": [],
    "label-export": [*OF_A_RUN, *OF_TRACKS],
    "submit": [*OF_A_RUN, *OF_TRACKS],
    "export": [*OF_A_RUN, *OF_TRACKS],
    "report": [*OF_A_RUN, (["norun"], "there is no run norun")],
    "import-tracks": [
        *OF_A_SPLIT,
        *OF_A_RECIPE,
        *OF_SAM2,
        (["--name", "a/b"], "not usable as a file name"),
    ],
    "oracle": [
        *OF_A_RUN,
        *OF_TRACKS,
        (["--format", "xml"], "there is no format 'xml'"),
        (["--file", "{data}"], "go together"),
        (["--file", "{data}", "--ground-truth", "{data}/none"], "no split of a known layout"),
        (["--file", "{data}/none", "--ground-truth", "{data}/valid_u"], "no such file or folder"),
    ],
}
# The first arguments of these, which nothing that is added replaces.
FIRST = {
    ("segment", "{data}/none.mp4", "a bar"): "no such file or folder",
    ("segment", "{data}/valid_u/mask_dict.json", "a bar"): "is no video",
    ("segment", "{data}/valid_u/JPEGImages/valid_u_0000", " "): "give one or more",
    ("import-tracks", "{data}/none.json", *DEMO_SPLIT): "no such file or folder",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_dataset(root, {"valid_u": 1}, seed=3, frames=6)
    return root


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Warehouse:
    """A video with tracks, labels, a run and its scores."""
    store = Warehouse.create(tmp_path_factory.mktemp("w"))
    ingest_split(store.url, "demo", str(data), "valid_u")
    stages.precompute(store, "demo", "valid_u", RECIPE)
    stages.label(store, "demo", "valid_u", RECIPE)
    publish_untrained(store, RECIPE)
    stages.evaluate(store, find_run(store, None), "demo", "valid_u")
    return store


def cases(store: Warehouse, data: Path, new: Path) -> dict[tuple[str, ...], str]:
    """Each command line with a wrong argument -> what its message says."""
    file = str(data / "valid_u" / "mask_dict.json")
    found = {(*first, "--warehouse", store.url): message for first, message in FIRST.items()}
    for command, right in RIGHT.items():
        at = ["--warehouse", store.url]
        for added, message in WRONG[command]:
            if command == "report" and added[0] == "--run":
                continue  # its run has no option
            found[(command, *right, *at, *added)] = message
        some = ["table5b", "--dataset", "mevis"] if command == "experiment" else []
        found[(command, *right, *some, "--warehouse", f"{file}/w")] = "mask_dict.json"
    return {
        tuple(part.format(data=data, new=new) for part in line): message
        for line, message in found.items()
    }


def test_each_wrong_argument_is_refused_before_torch_and_prefect_are_loaded(
    store: Warehouse, data: Path, tmp_path: Path
) -> None:
    lines = cases(store, data, tmp_path / "new")
    done = subprocess.run(
        [sys.executable, "-c", RUN_CASES.format(slow=SLOW)],
        input=json.dumps(list(lines)),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    wrong = [
        (line, *result)
        for (line, message), result in zip(lines.items(), json.loads(done.stdout), strict=True)
        if (result[0], result[2], result[1].count("error:")) != (1, [], 1)
        or message not in result[1]
    ]
    assert not wrong
    assert not list(tmp_path.iterdir())  # nothing was created


def sola(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_what_only_a_look_into_files_or_labels_tells_is_refused_without_a_server(
    store: Warehouse, data: Path, tmp_path: Path, no_server: None
) -> None:
    fake = tmp_path / "sam2.1_hiera_tiny.pt"
    fake.write_bytes(b"no checkpoint")
    unlabelled = Warehouse.create(tmp_path / "unlabelled")
    ingest_split(unlabelled.url, "demo", str(data), "valid_u")
    stages.precompute(unlabelled, "demo", "valid_u", RECIPE)
    at, demo = ["--warehouse", store.url], ["--dataset", "demo", "--split", "valid_u"]
    root = ["--root", data, "--recipe", "demo"]
    for line, message in (
        (["precompute", *root, *demo, *at, "--sam2", fake], "is not a SAM2 checkpoint"),
        (["precompute", *root, *demo, *at, "--set", "tracker=x"], "there is no tracker 'x'"),
        (["baseline", *demo, *at, "--sam2", fake], "is not a SAM2 checkpoint"),
        (["train", *demo, "--warehouse", unlabelled.url], "there are no pseudo-labels"),
    ):
        result = sola(*line)
        assert result.exit_code == 1 and message in result.output, (line, result.output)
