"""The figures of a run on one split, each the answer to SQL that can be run again as it is shown.

A figure is added here as a field of `SplitFigures` and in templates/split.html as a section.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from warehouse.queries import load_query

if TYPE_CHECKING:
    import duckdb

VIDEOS = 200  # of a split, in the list of videos
FEATURED = 6  # expressions, best and worst

# One row per expression of the videos that the run was evaluated on; without ground truth, or
# without scores, the columns from `jf` to `oracle_jf` are null. Percentages.
EXPRESSIONS = """
WITH evaluated AS (
    SELECT video_id FROM commits WHERE stage = 'evaluate' AND status = 'done' AND {of_split}
    UNION SELECT video_id FROM scores WHERE {of_split}
    UNION SELECT video_id FROM predictions WHERE {of_split}
),
candidates AS (
    SELECT
        video_id,
        expression_id,
        count(*) AS candidate_tracks,
        count(*) FILTER (selected) AS selected_tracks,
        max(score) AS best_score,
        list({{'track': track_id, 'confidence': coalesce(probability, score),
            'selected': selected}} ORDER BY score DESC, track_id)[:6] AS best_tracks
    FROM predictions
    WHERE {of_split}
    GROUP BY video_id, expression_id
),
groups AS (
    SELECT video_id, expression_id, list(slice || ': ' || value ORDER BY slice, place) AS groups
    FROM expression_slices
    WHERE {of_videos}
    GROUP BY video_id, expression_id
),
scored AS (
    SELECT video_id, expression_id, 100 * COLUMNS(['jf', 'j', 'f', 'oracle_jf'])
    FROM scores
    WHERE {of_split}
)
SELECT
    video_id,
    expression_id,
    text,
    tags,
    targets,
    coalesce(candidate_tracks, 0) AS candidate_tracks,
    coalesce(selected_tracks, 0) AS selected_tracks,
    best_score,
    coalesce(best_tracks, []) AS best_tracks,
    coalesce(groups, []) AS groups,
    scored.* EXCLUDE (video_id, expression_id)
FROM (FROM expression_facts WHERE {of_videos})
SEMI JOIN evaluated USING (video_id)
LEFT JOIN candidates USING (video_id, expression_id)
LEFT JOIN groups USING (video_id, expression_id)
LEFT JOIN scored USING (video_id, expression_id)
ORDER BY video_id, try_cast(expression_id AS INTEGER), expression_id
""".strip()

SELECTION = """
SELECT
    count(DISTINCT video_id) AS videos,
    (SELECT count(*) FROM videos WHERE {of_videos}) AS videos_of_split,
    count(*) AS expressions,
    round(avg(candidate_tracks), 2) AS mean_candidate_tracks,
    round(avg(selected_tracks), 2) AS mean_selected_tracks,
    round(100 * avg((selected_tracks = 0)::INTEGER), 2) AS nothing_selected,
    round(avg(best_score), 4) AS mean_best_score
FROM (
{expressions}
)
""".strip()

BY_VIDEO = """
SELECT
    video_id,
    count(*) AS expressions,
    round(avg(jf), 2) AS jf,
    round(avg(oracle_jf), 2) AS oracle_jf,
    any_value(frame_count) AS frames,
    max(candidate_tracks) AS tracks
FROM (
{expressions}
)
JOIN (FROM videos WHERE {of_videos}) USING (video_id)
GROUP BY video_id
ORDER BY avg(jf), video_id
LIMIT {limit}
""".strip()

FEATURE = """
SELECT
    video_id,
    expression_id,
    text,
    round(jf, 2) AS jf,
    round(oracle_jf, 2) AS oracle_jf
FROM (
{expressions}
)
WHERE jf IS NOT NULL{condition}
QUALIFY row_number() OVER (PARTITION BY video_id ORDER BY {order}, expression_id) = 1
ORDER BY {order}, video_id
LIMIT {limit}
""".strip()

PREDICTED = """
SELECT dataset, split, track_set, bool_or(stale) AS stale
FROM (
    SELECT dataset, split, track_set, stale FROM commits
    WHERE stage = 'evaluate' AND status = 'done' AND run_id = {run}
    UNION ALL  -- what is shown of a video that failed since, too
    SELECT dataset, split, track_set, stale FROM predictions WHERE run_id = {run}
)
GROUP BY ALL
ORDER BY ALL
""".strip()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """SQL and its rows, by column name."""

    sql: str
    columns: tuple[str, ...]
    rows: list[dict]


@dataclass(frozen=True, kw_only=True)
class SplitFigures:
    """What the page says of one split. Scores are in percent, as named queries give them."""

    dataset: str
    split: str
    track_set: str
    summary: Answer  # no row: no scores
    selection: Answer
    thresholds: Answer
    calibration: Answer
    histogram: Answer
    slices: Answer
    oracle: Answer  # no row: `sola oracle` was not run on the tracks
    coverage: Answer  # of its objects
    worst: Answer
    best: Answer
    videos: Answer
    expressions: Answer
    experiments: Answer  # of all runs on the split


def ask(connection: "duckdb.DuckDBPyConnection", sql: str) -> Answer:
    """The answer to SQL that returns rows."""
    table = connection.sql(sql).to_arrow_table()
    return Answer(sql=sql, columns=tuple(table.column_names), rows=table.to_pylist())


def quoted(text: str) -> str:
    """The text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


class Predicted(NamedTuple):
    """What a run was evaluated on; stale: a video of it has been replaced since."""

    dataset: str
    split: str
    track_set: str
    stale: bool


def predicted_splits(connection: "duckdb.DuckDBPyConnection", run_id: str) -> list[Predicted]:
    """What a run was evaluated on."""
    answer = connection.sql(PREDICTED.format(run=quoted(run_id))).fetchall()
    return [Predicted(*row) for row in answer]


def split_figures(
    connection: "duckdb.DuckDBPyConnection", run_id: str, on: Predicted
) -> SplitFigures:
    """All figures of a run on one split and track set."""
    of_videos = f"dataset = {quoted(on.dataset)} AND split = {quoted(on.split)}"
    of_tracks = f"{of_videos} AND track_set = {quoted(on.track_set)}"
    of_split = f"run_id = {quoted(run_id)} AND {of_tracks}"
    expressions = EXPRESSIONS.format(of_split=of_split, of_videos=of_videos)

    def named(
        query: str, known: str = "run_id, dataset, split, track_set", where: str = of_split
    ) -> Answer:
        inner = load_query(query).strip()
        return ask(connection, f"SELECT * EXCLUDE ({known}) FROM (\n{inner}\n)\nWHERE {where}")

    def over_expressions(template: str, **parts: object) -> Answer:
        parts = {"expressions": expressions, "of_videos": of_videos} | parts
        return ask(connection, template.format(**parts))

    return SplitFigures(
        dataset=on.dataset,
        split=on.split,
        track_set=on.track_set,
        summary=named("scores_summary"),
        selection=over_expressions(SELECTION),
        thresholds=named("jf_by_threshold"),
        calibration=named("calibration"),
        histogram=named("iou_histogram", "dataset, split, track_set", of_tracks),
        slices=named("scores_by_slice"),
        oracle=named("oracle_by_slice"),
        coverage=named("track_coverage", "dataset, split, track_set", of_tracks),
        worst=over_expressions(FEATURE, condition="", order="jf, oracle_jf DESC", limit=FEATURED),
        best=over_expressions(
            FEATURE, condition=" AND targets > 0", order="jf DESC, oracle_jf", limit=FEATURED
        ),
        videos=over_expressions(BY_VIDEO, limit=VIDEOS),
        expressions=ask(connection, expressions),
        experiments=named("experiments_summary", "dataset, split", of_videos),
    )
