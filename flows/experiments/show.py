"""An experiment as a table for people: the paper's numbers beside ours, mean and spread."""

from rich.console import Console
from rich.table import Table

from warehouse import Warehouse
from warehouse.queries import load_query

console = Console()


def print_experiment(store: Warehouse, experiment: str, dataset: str, split: str) -> None:
    """A line per variant, a column per metric; ± is the standard deviation over seeds."""
    sql = f"""
        SELECT * FROM ({load_query("experiments_summary")})
        WHERE experiment = $experiment AND dataset = $dataset AND split = $split
    """
    where = {"experiment": experiment, "dataset": dataset, "split": split}
    with store.connect() as connection:
        rows = connection.sql(sql, params=where).to_arrow_table().to_pylist()
    metrics = list(dict.fromkeys((row["metric"], row["unit"]) for row in rows))
    in_paper = {row["metric"] for row in rows if row["paper"] is not None}
    places = list(dict.fromkeys(row["measured_on"] for row in rows))
    several = len(places) > 1
    title = f"{experiment} on {', '.join(places[:2])}{', ...' if len(places) > 2 else ''}, "
    title += f"recipe {rows[0]['recipe']}"
    headers = ["variant", *["on"] * several]
    for metric, unit in metrics:
        headers += [f"{metric} {unit}".strip(), *["paper"] * (metric in in_paper)]
    table = Table(*headers, title=title, title_justify="left")
    lines: dict[tuple[str, ...], dict[str, dict]] = {}
    for row in rows:
        name = (row["variant"], *[row["measured_on"]] * several)
        lines.setdefault(name, {})[row["metric"]] = row
    for name, found in lines.items():
        cells = list(name)
        for metric, _ in metrics:
            cells += _cells(found.get(metric), metric in in_paper)
        table.add_row(*cells)
    console.print(table)


def _cells(row: dict | None, in_paper: bool) -> list[str]:
    if row is None:
        return ["", *[""] * in_paper]
    form = ".1f" if row["unit"] == "%" else ".4g"
    spread = "" if row["spread"] is None else f" ± {row['spread']:{form}}"
    paper = "" if row["paper"] is None else f"{row['paper']:{form}}"
    return [f"{row['mean']:{form}}{spread}", *[paper] * in_paper]
