"""What Prefect's UI shows of an evaluation: J&F, groups of expressions, pictures of examples."""

from collections.abc import Iterable, Mapping
from typing import Any

from prefect.artifacts import create_markdown_artifact

from tasks.report_page.strips import Wanted, draw
from tasks.results.predictions import EvaluatedVideo, predicted_videos
from tasks.runs import Run
from tasks.track_sets import TrackSet
from warehouse import Warehouse
from warehouse.commits import STAGES
from warehouse.queries import load_query

EXAMPLES = 3  # of the lowest J&F, and of the highest, each of another video
SUMMARY = {
    "expressions": "expressions",
    "jf": "J&F",
    "j": "J",
    "f": "F",
    "oracle_jf": "oracle",
    "all_tracks_jf": "all tracks",
    "largest_track_jf": "largest track",
    "random_track_jf": "random track",
    "lost_in_tracks": "lost in tracks",
    "lost_in_selection": "lost in selection",
}
SLICES = {
    "slice": "group",
    "value": "",
    "expressions": "expressions",
    "jf": "J&F",
    "oracle_jf": "oracle",
}
OF_SPLIT = "run_id = $run AND dataset = $dataset AND split = $split AND track_set = $tracks"
EXTREMES = f"""
SELECT video_id, expression_id, text, round(100 * jf, 1) AS jf, round(100 * oracle_jf, 1) AS oracle
FROM expression_scores
WHERE {OF_SPLIT} AND NOT stale AND targets > 0
QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY jf {{order}}, expression_id) = 1
ORDER BY jf {{order}}, video_id
LIMIT {EXAMPLES}
"""


def show_evaluation(
    store: Warehouse, run: Run, dataset: str, split: str, track_set: TrackSet
) -> None:
    """The scores of a run on a split as an artifact, if it has any."""
    asked = {"run": run.run_id, "dataset": dataset, "split": split, "tracks": track_set.name}
    with store.connect() as connection:

        def answer(sql: str) -> list[dict[str, Any]]:
            return connection.sql(sql, params=asked).to_arrow_table().to_pylist()

        summary, slices = (
            answer(f"SELECT * FROM ({load_query(name)}) WHERE {OF_SPLIT}")
            for name in ("scores_summary", "scores_by_slice")
        )
        lowest, highest = (answer(EXTREMES.format(order=order)) for order in ("ASC", "DESC"))
    if not summary:
        return
    partitions = [f"`data/{table}/{dataset}/{split}`" for table in STAGES["evaluate"]]
    lines = [
        f"## {run.run_id} on {dataset}/{split}, in percent",
        f"Trained on {run.dataset}/{run.split}. In {store.url}: the selector in "
        f"`{run.weights}`, what it gave in {' and '.join(partitions)}.",
        _table(SUMMARY, summary),
        "### Groups of expressions",
        _table(SLICES, slices),
    ]
    videos = predicted_videos(store, run.run_id, dataset, split, track_set)
    for title, examples in (("Lowest J&F", lowest), ("Highest J&F", highest)):
        lines.append(f"### {title}")
        for example in examples:
            lines += _example(videos[example["video_id"]], example)
    text = "\n\n".join(lines)
    create_markdown_artifact(text, "evaluation", f"{run.run_id} on {dataset}/{split}")


def _table(names: Mapping[str, str], answers: Iterable[Mapping[str, Any]]) -> str:
    """Rows of an answer as a table with these columns, under their names for readers."""
    rows = [names.values(), ["---"] * len(names)]
    rows += [[answer[column] for column in names] for answer in answers]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def _example(video: EvaluatedVideo, example: Mapping[str, Any]) -> list[str]:
    """What one expression asked for and got."""
    expression_id = example["expression_id"]
    strips = draw(Wanted(video=video, expression_ids=(expression_id,)))
    pictures = (
        ("ground truth", strips.ground_truth),
        ("prediction", strips.predictions),
    )
    return [
        f"**{example['video_id']}/{expression_id}**: {example['text']}. "
        f"J&F {example['jf']}, oracle {example['oracle']}. {strips.error}",
        *(f"{name} ![{name}]({by_id[expression_id]})" for name, by_id in pictures if by_id),
    ]
