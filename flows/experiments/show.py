"""An experiment on the terminal."""

from rich.console import Console
from rich.table import Table

from tasks.experiment_tables import experiment_tables
from warehouse import Warehouse

console = Console()


def print_experiment(store: Warehouse, experiment: str, dataset: str, split: str) -> None:
    """A line per variant, a column per metric; ± is the standard deviation over seeds."""
    (found,) = (t for t in experiment_tables(store, dataset, split) if t.name == experiment)
    table = Table(*found.header, title=f"{experiment} {found.title}", title_justify="left")
    for line in found.lines:
        table.add_row(*line)
    console.print(table)
