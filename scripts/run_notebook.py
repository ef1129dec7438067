"""Execute docs/notebook.ipynb with a finished demo, and keep what it shows.

python -m scripts.run_notebook --warehouse demo-warehouse
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def execute(warehouse: Path) -> nbformat.NotebookNode:
    """The notebook with this warehouse's outputs. Raises CellExecutionError when a cell fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=300,
        record_timing=False,
        resources={"metadata": {"path": str(NOTEBOOK.parent)}},
    )
    client.execute(env=os.environ | {"SOLA_WAREHOUSE": str(warehouse.resolve())})
    for cell in notebook.cells:
        if cell.cell_type == "code":  # warnings are about the machine, and name its folders
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--warehouse", type=Path, default=Path("demo-warehouse"))
    nbformat.write(execute(parser.parse_args().warehouse), NOTEBOOK)
