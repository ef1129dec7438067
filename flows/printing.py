"""What the command line prints: query results, status, scores, comparisons, experiments."""

import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tasks.experiments.tables import experiment_tables
from tasks.results.compare import Comparison, Difference, Pair
from tasks.runs import find_run
from warehouse import TABLES, Key, Warehouse, WarehouseError
from warehouse.demo_data import SAMPLE_CLIP
from warehouse.exports import WRITERS
from warehouse.outputs import check_output, files_of
from warehouse.queries import VIEWS, check_reads, load_query, named_queries, views
from warehouse.sources import PROTOCOL
from warehouse.submissions import replacing

if TYPE_CHECKING:
    import duckdb

PIPE_WIDTH = 10_000  # columns: where nobody's screen ends the lines, tables break none
# Texts and names are shown as they are.
console = Console(markup=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)

SUMMARY = {
    "expressions": "number",
    "jf": "J&F",
    "j": "J",
    "f": "F",
    "oracle_jf": "oracle",
    "all_tracks_jf": "all",
    "largest_track_jf": "largest",
    "random_track_jf": "random",
}
# Kept beside the results.
OF_COMMANDS = ("track_set", "default_tracks", "plan", "search_references")
TRIVIAL = {
    "all_tracks_jf": "all",
    "largest_track_jf": "largest",
    "random_track_jf": "random",
}


def write_result(
    warehouse: str, sql: str, format: str, out: Path | None, unsafe: bool = False
) -> None:
    """Run SQL, or a named query, and write the result to `out` or standard output.

    Unless it is `unsafe`, the SQL can do nothing but read this warehouse.

    Raises:
        ValueError: unknown format or name, parquet without a file to write to, SQL that does more
            than read, or a file that cannot be written: then one that was there stays as it was.
    """
    if format not in WRITERS:
        raise ValueError(f"there is no format {format!r}; valid are: {', '.join(WRITERS)}")
    if format == "parquet" and out is None:
        raise ValueError("parquet is not text: name a file with --out FILE.parquet")
    store = Warehouse(warehouse)
    if out is not None:
        check_output(out, files_of(store, out))
    if re.fullmatch(r"[\w-]+", sql) and sql not in named_queries():
        raise ValueError(_no_query(sql))
    query = load_query(sql) if sql in named_queries() else sql
    with store.connect(read_only=not unsafe) as connection, _unsafe_named():
        if not unsafe:
            check_reads(connection, query)
        result = connection.sql(query)
        if result is None:  # a statement without rows
            return
        with nullcontext(sys.stdout.buffer) if out is None else replacing(out) as stream:
            WRITERS[format](result, stream)


@contextmanager
def _unsafe_named() -> Iterator[None]:
    """Refusals of more than reading say what lifts them."""
    import duckdb

    try:
        yield
    except (WarehouseError, duckdb.PermissionException) as error:
        raise ValueError(
            f"{error}\n`sola query` only reads this warehouse; --unsafe lets SQL do all that you "
            "may do: read and write any file, load extensions, use the network"
        ) from error


def _no_query(name: str) -> str:
    """What to say of one word that is no named query."""
    said = f"there is no query named {name!r}"
    if name in (*TABLES, *VIEWS):
        return f'{said}, but a table: ask "FROM {name}"'
    if close := get_close_matches(name, [*named_queries(), *TABLES, *VIEWS], n=1):
        said += f"; is it {close[0]}?"
    return f"{said} (`sola query` lists the queries and tables)"


def print_catalogue() -> None:
    """The tables, views and named queries that `sola query` knows."""
    tables = {name: TABLES[name].metadata[b"description"].decode() for name in TABLES}
    _print("tables", ["table", "rows are"], tables.items())
    beside = {"commits": "One row per unit of work, as its latest record has it."} | views()
    _print("views", ["view", "rows are"], beside.items())
    _print("named queries, views in SQL", ["name", "answers"], named_queries().items())


def print_status(warehouse: str) -> int:
    """What is done and what failed; returns the number of failed videos."""
    store = Warehouse(warehouse)
    connection = store.connect()
    status = connection.sql(f"FROM ({load_query('status')}) WHERE stage NOT IN {OF_COMMANDS}")
    table = Table(*status.columns)
    for row in status.fetchall():
        table.add_row(*(str(value) for value in row))
    console.print(table)
    stale = connection.sql(
        "SELECT DISTINCT stage, dataset, split, run_id, track_set FROM commits WHERE stale"
    ).fetchall()
    for command in sorted(
        {
            redo(warehouse, stage, Key(dataset, split, run_id=run_id, track_set=track_set))
            for stage, dataset, split, run_id, track_set in stale
        }
    ):
        print(f"stale, made from what was replaced since; make it again: {command}")
    failed = connection.sql(
        "SELECT stage, dataset, split, video_id, error FROM commits WHERE status = 'failed'"
    ).fetchall()
    for stage, dataset, split, video_id, error in failed:
        print(f"{stage} {dataset}/{split}/{video_id}: {error}")
    _print_left_out(connection)
    for stage, dataset, split in sorted({row[:3] for row in failed}):
        print(f"after mending the cause: {redo(warehouse, stage, Key(dataset, split))}")
    return len(failed)


def _print_left_out(
    connection: "duckdb.DuckDBPyConnection", condition: str = "true", values: dict | None = None
) -> None:
    """The expressions that stages left out, of commits that meet a condition."""
    sql = f"""
        SELECT stage, dataset, split, video_id, unnest(left_out)
        FROM commits
        WHERE status = 'done' AND NOT stale AND {condition}
    """
    for stage, *video_and_text in connection.sql(sql, params=values or {}).fetchall():
        print(f"{stage} left out {'/'.join(filter(None, video_and_text))}")


def print_tracks(warehouse: str, dataset: str | None, split: str | None) -> None:
    """The track sets of all splits, or of these."""
    sql = (
        f"SELECT * FROM ({load_query('track_sets_summary')}) "
        "WHERE dataset = coalesce($dataset, dataset) AND split = coalesce($split, split)"
    )
    with Warehouse(warehouse).connect() as connection:
        found = connection.sql(sql, params={"dataset": dataset, "split": split})
        _print("track sets", found.columns, found.fetchall())


def redo(warehouse: str, stage: str, key: Key) -> str:
    """The command that makes a key's data of a stage again."""
    from tasks.own_video import DATASET, SPLIT
    from tasks.stages import STAGES
    from tasks.stages.ingest import layout_of

    if (key.dataset, key.split) == (DATASET, SPLIT):
        return "the same `sola segment` command again"
    command, *more = STAGES[stage].command.split()
    words = ["sola", command, "--warehouse", str(warehouse)]
    if key.dataset and command == "precompute":
        layout = layout_of(Warehouse(warehouse), key.dataset, key.split)
        named = [] if layout == key.dataset else ["--dataset-name", key.dataset]
        words += ["--dataset", layout, *named, "--split", key.split]
    elif key.dataset:
        words += ["--dataset", key.dataset, "--split", key.split]
    if key.run_id and command in ("evaluate", "search"):
        words += ["--run", key.run_id]
    if key.track_set and command != "precompute":
        words += ["--tracks", key.track_set]
    return " ".join([shlex.join(words), *more])


def print_why(warehouse: str, video_id: str) -> None:
    """For each stage of a video whether it is up to date, and if not, what has changed."""
    from tasks.results.why import why

    for line in why(Warehouse(warehouse), video_id):
        print(line)


def print_evaluation(
    warehouse: str, run_id: str, dataset: str, split: str, tracks: str | None = None
) -> None:
    """A run's scores on a split, in percent, and which threshold would have been best."""
    from tasks.stages.ingest import layout_of

    store = Warehouse(warehouse)
    tracks = find_run(store, run_id).tracks_of(store, dataset, split, tracks).name
    connection = store.connect()
    where = {"run": run_id, "dataset": dataset, "split": split, "tracks": tracks}
    of_split = "run_id = $run AND dataset = $dataset AND split = $split AND track_set = $tracks"
    _print_left_out(connection, of_split, where)
    sql = f"SELECT * FROM ({load_query('scores_summary')}) WHERE {of_split}"
    summaries = connection.sql(sql, params=where).to_arrow_table().to_pylist()
    if not summaries:
        print(f"{dataset}/{split} has no scores of {run_id}: no ground truth, or no video done")
        return
    (summary,) = summaries
    kind = "zero-shot, " if summary["zero_shot"] else ""
    _print(
        f"{run_id} on {dataset}/{split} in percent ({kind}trained on {summary['trained_on']}), "
        f"tracks {tracks}",
        list(SUMMARY.values()),
        [[summary[name] for name in SUMMARY]],
    )
    if summary["challenge"] is not None:
        print(
            f"N-acc {summary['n_acc']:.2f}, T-acc {summary['t_acc']:.2f}; mean of J&F and both "
            f"(MeViS v2 challenge) {summary['challenge']:.2f}"
        )
    print(
        f"lost in tracks {summary['lost_in_tracks']:.2f}, in selection "
        f"{summary['lost_in_selection']:.2f}; by groups of expressions: sola query scores_by_slice"
    )
    sql = f"SELECT tau, jf FROM ({load_query('jf_by_threshold')}) WHERE {of_split} AND best"
    tau, jf = connection.sql(sql, params=where).fetchall()[0]
    print(
        f"best threshold on this split {tau:.2f}: J&F {jf:.2f}, an optimistic number; choose tau "
        "on one split and report another"
    )
    if PROTOCOL.get(layout_of(store, dataset, split)) == "davis":
        print(
            "papers score this data set with the objects of each annotator merged: sola submit "
            f"--dataset {dataset} --split {split} --run {run_id} --out FILE.zip, then sola score "
            "--ground-truth DIR --predictions FILE.zip"
        )


def print_baseline(warehouse: str, run_id: str, dataset: str, split: str) -> None:
    """A baseline's scores on a split, in percent."""
    connection = Warehouse(warehouse).connect()
    where = {"run": run_id, "dataset": dataset, "split": split}
    of_split = "run_id = $run AND dataset = $dataset AND split = $split"
    _print_left_out(connection, of_split, where)
    summary = connection.sql(
        f"SELECT expressions, jf, j, f FROM ({load_query('scores_summary')}) WHERE {of_split}",
        params=where,
    ).fetchall()
    if not summary:
        print(f"{dataset}/{split} has no scores of {run_id}: no ground truth, or no video done")
        return
    _print(f"{run_id} on {dataset}/{split} in percent", ["number", "J&F", "J", "F"], summary)
    print(f"against a run: sola compare {run_id} RUN --dataset {dataset} --split {split}")


def print_comparison(comparison: Comparison) -> None:
    """B minus A over all expressions, by slice, and where they differ most, in percent."""
    runs = comparison.run_a, comparison.run_b
    tracks = comparison.tracks_a, comparison.tracks_b
    a, b = runs if tracks[0] == tracks[1] else map(_with_tracks, runs, tracks)
    of_tracks = comparison.of_tracks
    oracle = [of_tracks.oracle] if of_tracks else []
    differences = [comparison.overall, *oracle, *comparison.slices]
    _print(
        f"J&F on {comparison.dataset}/{comparison.split} in percent: A = {a}, B = {b}",
        ["", "", "number", "videos", "A", "B", "B - A", "95 % interval"],
        [_difference_row(each) for each in differences],
    )
    print("interval: bootstrap over videos; across many slices some exclude 0 by chance\n")
    _print_most("", comparison.worse, comparison.better)
    if of_tracks:
        a, b = (f"{seconds:.3g} s" for seconds in (of_tracks.seconds_a, of_tracks.seconds_b))
        print("oracle: the best union of the tracks that there are")
        print(f"to make the tracks of a video took {a} in A, {b} in B\n")
        _print_most("oracle ", of_tracks.worse, of_tracks.better)


def _print_most(of: str, worse: Sequence[Pair], better: Sequence[Pair]) -> None:
    for title, pairs in (("worse", worse), ("better", better)):
        headers = ["video", "expression", "text", "A", "B"]
        _print(f"{of}most {title} in B", headers, [_pair_row(pair) for pair in pairs])


def _with_tracks(run_id: str, tracks: str | None) -> str:
    return f"{run_id} with {tracks}" if tracks else run_id


def _difference_row(each: Difference) -> list[object]:
    interval = ""
    if each.low is not None and each.high is not None:
        interval = f"{100 * each.low:+.2f} to {100 * each.high:+.2f}"
    scores = [100 * each.jf_a, 100 * each.jf_b, f"{100 * each.difference:+.2f}", interval]
    return [each.slice, each.value, each.expressions, each.videos, *scores]


def _pair_row(pair: Pair) -> list[object]:
    return [pair.video_id, pair.expression_id, pair.text, 100 * pair.jf_a, 100 * pair.jf_b]


def print_demo_report(warehouse: str, run_id: str) -> None:
    """J&F of the selector, the oracle and trivial selectors; label statistics; what to ask."""
    connection = Warehouse(warehouse).connect()
    columns = ", ".join(["tag", "expressions", "oracle_jf", "jf", *TRIVIAL])
    scores = connection.sql(
        f"""
        WITH everything AS (SELECT 'all' AS tag, * FROM ({load_query("scores_summary")})),
             by_tag AS ({load_query("scores_by_tag")})
        SELECT {columns} FROM (FROM everything UNION ALL BY NAME FROM by_tag)
        WHERE run_id = '{run_id}' AND (
            tag IN ('paraphrase', 'training words') OR split = 'valid_u'
            AND tag IN ('all', 'look-alike', 'motion', 'static', 'multi-target', 'no-target')
        )
        ORDER BY tag
        """
    ).fetchall()
    headers = ["", "number", "oracle", "selector", *TRIVIAL.values()]
    _print(f"J&F in percent on held-out clips, run {run_id}", headers, scores)
    print("all, largest, random: what selecting all tracks, the largest or a random one would give")
    print("look-alike: something that looks like the target is not meant; only motion tells")
    print("paraphrase: all of them, in words that no training expression has; training words: in")
    print("their own, beside it, with the same tracks to choose from (those of the grid alone)")
    accuracies = connection.sql(
        f"SELECT n_acc, t_acc FROM ({load_query('scores_summary')}) "
        f"WHERE run_id = '{run_id}' AND split = 'valid_u' AND n_acc IS NOT NULL"
    ).fetchall()
    for n_acc, t_acc in accuracies:
        print(
            f"N-acc {n_acc:.2f}, T-acc {t_acc:.2f}: empty where there is no target, not elsewhere"
        )
    print()
    table4 = connection.sql(
        f"""
        SELECT run_id, jf, j, f FROM ({load_query("scores_summary")})
        WHERE split = 'valid_u' AND (run_id = '{run_id}' OR run_id LIKE 'detector-only-%')
        ORDER BY run_id = '{run_id}', run_id
        """
    ).fetchall()
    _print("Table 4: without and with the selector", ["", "J&F", "J", "F"], table4)
    print("detector-only: the best box of each frame, segmented by itself\n")
    statistics = connection.sql(load_query("pseudo_label_statistics"))
    by_split = zip(statistics.columns, *statistics.fetchall(), strict=True)
    _, splits, *numbers = by_split
    _print("pseudo-labels", list(splits), numbers)
    named = shlex.quote(str(warehouse))
    sample = shlex.quote(str(Warehouse(warehouse).work_folder() / SAMPLE_CLIP.name))
    where = f"--warehouse {named}"
    print(
        f"""find what a sentence means:
  sola search "the red circle that turns back" {where}
  sola segment {sample} "the red circle that turns back" {where} --out found.mp4
ask the warehouse:
  sola query {where}    # lists its tables and named queries
  sola query {where} worst_expressions
  sola query {where} token_similarity_by_iou
  sola query {where} --format csv "SELECT text, jf FROM scores JOIN expressions \
USING (dataset, split, video_id, expression_id) WHERE jf < 0.3\""""
    )


def _print(title: str, headers: list[str], rows: Iterable[Sequence[object]]) -> None:
    table = Table(*headers, title=title, title_justify="left")
    for row in rows:
        table.add_row(*map(_shown, row))
    console.print(table)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def print_experiment(store: Warehouse, experiment: str, dataset: str, split: str) -> None:
    """A line per variant, a column per metric; ± is the standard deviation over seeds."""
    (found,) = (t for t in experiment_tables(store, dataset, split) if t.name == experiment)
    table = Table(*found.header, title=f"{experiment} {found.title}", title_justify="left")
    for line in found.lines:
        table.add_row(*line)
    console.print(table)
