"""What a command costs before anything is computed: a new sentence, and a wrong argument.

    python -m benchmarks.commands      # or: make bench

A new sentence about a video that has its tracks, by `sola segment` and by its flow with Prefect's
server and a worker, in turns; then commands with an argument that is refused. Seconds of processor
time, of all processes together. A clip of the embedded data, recipe `demo`, an untrained selector.
"""

import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.search import publish_run
from sola_model.recipes import DEMO
from warehouse import Warehouse
from warehouse.demo_data import SAMPLE_CLIP

ROUNDS = 3
RECIPE = replace(DEMO, tau=0.5)
FLOW = """
import sys
from flows.runtime import prefect_api
from flows.segment import segment
with prefect_api():
    segment(sys.argv[1], sys.argv[2], [sys.argv[3]], tracks=sys.argv[4], workers=1)
"""
REFUSED = {
    "a run": ["evaluate", "--run", "none"],
    "a split": ["evaluate", "--dataset", "mevis", "--split", "none"],
    "a recipe": ["label", "--recipe", "none"],
    "a checkpoint": ["segment", str(SAMPLE_CLIP), "a bar", "--sam2", "none"],
    "an experiment": ["experiment", "none"],
}


def processor_seconds(command: list[str], code: int = 0) -> float:
    """Of a command that ends with this exit code, and its child processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == code, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def new_sentence(store: Warehouse, out: Path) -> None:
    """In this process, and with a server and a worker."""
    clip = str(SAMPLE_CLIP)
    seconds: dict[str, list[float]] = {"here": [], "fanned out": []}
    outputs = ["--json", str(out), "--warehouse", store.url]
    processor_seconds(["-c", FLOW, store.url, clip, "the first sentence", str(out)])  # tracks
    for number in range(ROUNDS):
        sola = ["-m", "flows.cli", "segment", clip, f"sentence {number}", *outputs]
        seconds["here"].append(processor_seconds(sola))
        flow = ["-c", FLOW, store.url, clip, f"another sentence {number}", str(out)]
        seconds["fanned out"].append(processor_seconds(flow))
    here, fanned_out = (statistics.median(each) for each in seconds.values())
    print(f"  a new sentence: {here:.1f} s, with server and worker {fanned_out:.1f} s "
          f"({fanned_out / here:.1f}x)")  # fmt: skip


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Warehouse.create(Path(folder) / "w")
        publish_run(store, RECIPE)
        for what, command in REFUSED.items():
            line = ["-m", "flows.cli", *command, "--warehouse", store.url]
            seconds = statistics.median(processor_seconds(line, code=1) for _ in range(ROUNDS))
            print(f"  {what} that is not there, refused: {seconds:.2f} s")
        new_sentence(store, Path(folder) / "found.json")


if __name__ == "__main__":
    main()
