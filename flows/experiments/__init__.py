"""The paper's tables and figures and some of our own, each a function of a `Setup`.

Each prepares its splits, trains and evaluates what the warehouse lacks, and returns what it
measured; `flows.experiment` publishes and shows that. See docs/experiments.md.
"""

from collections.abc import Iterable

MODULES = {
    "table1": "transfer",
    "table2": "transfer",
    "table3": "transfer",
    "table4": "transfer",
    "table5a": "ablations",
    "table5b": "ablations",
    "tableA2a": "ablations",
    "tableA2b": "ablations",
    "tableA1": "robustness",
    "figure4": "tokens",
    "figure5": "tokens",
    "probe": "tokens",
    "geometry": "ablations",
    "alignment": "ablations",
    "streams": "ablations",
    "learning_curve": "analysis",
    "error_budget": "analysis",
    "token_precision": "analysis",
    "extraction_cost": "analysis",
    "fresh": "fresh",
    "search": "fresh",
    "counterfactual": "counterfactual",
}
"""Each experiment, and the module here that has its function; none is imported for a list."""


def check_experiments(names: Iterable[str]) -> None:
    """Raise ValueError when there is no experiment of a name."""
    if unknown := [name for name in names if name not in MODULES]:
        raise ValueError(
            f"there is no experiment {', '.join(unknown)}; there are: {', '.join(MODULES)}"
        )
