"""Experiments as tables for people: the paper's numbers beside ours, mean and spread."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.paper import comparable
from warehouse import Warehouse
from warehouse.queries import load_query
from warehouse.submissions import replacing

NAMES = {"jf": "J&F", "j": "J", "f": "F"}


@dataclass(frozen=True, kw_only=True)
class ExperimentTable:
    """What an experiment measured: a line per variant and place, a column per metric.

    In a cell, ± is the standard deviation over seeds. pictures: files.
    """

    name: str
    title: str
    header: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    pictures: tuple[Path, ...]


def picture_folder(store: Warehouse) -> Path:
    """Where experiments keep their pictures, `<experiment>-<dataset>-<split>...`."""
    return store.work_folder() / "experiments"


def experiment_tables(store: Warehouse, dataset: str, split: str) -> list[ExperimentTable]:
    """The experiments that were run on a data set and validate on a split, the paper's first."""
    sql = f"""
        SELECT * FROM ({load_query("experiments_summary")})
        WHERE dataset = $dataset AND split = $split
    """
    with store.connect() as connection:
        found = connection.sql(sql, params={"dataset": dataset, "split": split}).to_arrow_table()
    by_name: dict[str, list[dict]] = {}
    for row in found.to_pylist():
        by_name.setdefault(row["experiment"], []).append(row)
    names = sorted(by_name, key=lambda name: (not name.startswith(("table", "figure")), name))
    return [
        _table(by_name[name], sorted(picture_folder(store).glob(f"{name}-{dataset}-{split}*")))
        for name in names
    ]


def write_results(
    store: Warehouse, dataset: str, split: str, about: Mapping[str, str], out: Path
) -> None:
    """Write README.md with the tables into a folder, and the pictures beside it.

    about: a sentence for each experiment.
    """
    out.mkdir(parents=True, exist_ok=True)
    parts = [
        f"# Experiments on {dataset}/{split}",
        comparable(dataset, split),
        f"Each is `sola experiment NAME --dataset {dataset}`, all of them `sola experiment --all "
        f"--dataset {dataset}`. ± is the standard deviation over seeds.",
    ]
    for table in experiment_tables(store, dataset, split):
        lines = [table.header, ["---"] * len(table.header), *table.lines]
        parts += [
            f"## {table.name}",
            about[table.name],
            f"{table.title}:",
            "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines),
        ]
        for picture in table.pictures:
            with picture.open("rb") as source, replacing(out / picture.name) as target:
                shutil.copyfileobj(source, target)
            parts.append(f"![{picture.stem}]({picture.name})")
    with replacing(out / "README.md") as readme:
        readme.write(("\n\n".join(parts) + "\n").encode())


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(rows: list[dict], pictures: list[Path]) -> ExperimentTable:
    metrics = list(dict.fromkeys((row["metric"], row["unit"]) for row in rows))
    in_paper = {row["metric"] for row in rows if row["paper"] is not None}
    places = list(dict.fromkeys(row["measured_on"] for row in rows))
    several = len(places) > 1
    header = ["variant", *["on"] * several]
    for metric, unit in metrics:
        shown = NAMES.get(metric, metric)
        header += [f"{shown} {unit}".strip(), *["paper"] * (metric in in_paper)]
    lines: dict[tuple[str, ...], dict[str, dict]] = {}
    for row in rows:
        name = (row["variant"], *[row["measured_on"]] * several)
        lines.setdefault(name, {})[row["metric"]] = row
    seeds = max(row["seeds"] for row in rows)
    where = f"{', '.join(places[:2])}{', ...' if len(places) > 2 else ''}"
    return ExperimentTable(
        name=rows[0]["experiment"],
        title=f"on {where}, recipe {rows[0]['recipe']}, {seeds} seed{'s' * (seeds > 1)}",
        header=tuple(header),
        lines=tuple(
            (*name, *(c for m, _ in metrics for c in _cells(found.get(m), m in in_paper)))
            for name, found in lines.items()
        ),
        pictures=tuple(pictures),
    )


def _cells(row: dict | None, in_paper: bool) -> list[str]:
    if row is None:
        return ["", *[""] * in_paper]
    form = ".1f" if row["unit"] == "%" else ".4g"
    spread = "" if row["spread"] is None else f" ± {row['spread']:{form}}"
    paper = "" if row["paper"] is None else f"{row['paper']:{form}}"
    return [f"{row['mean']:{form}}{spread}", *[paper] * in_paper]
