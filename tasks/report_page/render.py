"""Fill in the page's templates. All text from data is escaped there; none of it is markup.

The page's own policy forbids it to load anything and to run any script but its own.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tasks.paper import ABLATIONS, comparable, paper_tables
from tasks.pictures.masks_on_frames import PALETTE
from tasks.report_page.charts import Charts
from tasks.report_page.strips import PICTURED

if TYPE_CHECKING:
    from tasks.report_page.page import Section
    from tasks.runs import Run

TEMPLATES = Path(__file__).parent / "templates"
NAMES = {
    "jf": "J&F",
    "j": "J",
    "f": "F",
    "oracle_jf": "oracle",
    "all_tracks_jf": "all tracks",
    "largest_track_jf": "largest",
    "random_track_jf": "random",
    "n_acc": "N-acc",
    "t_acc": "T-acc",
    "tracks_selected": "tracks selected, mean",
    "miou_from": "mIoU from",
}
FRACTIONS = (
    "mean_score",
    "mean_probability",
    "positive_rate",
    "calibration_error",
    "calibrated_error",
    "mean_best_score",
    "best_score",
)


def render(run: "Run", sections: Sequence["Section"]) -> str:
    """The page."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": cell, "column": column, "data_uri": data_uri}
    script = (TEMPLATES / "script.js").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        run=run,
        sections=sections,
        charts=Charts(),
        pictured=PICTURED,
        palette=["rgb({}, {}, {})".format(*colour) for colour in PALETTE],
        paper_tables=paper_tables,
        comparable=comparable,
        ablations=ABLATIONS,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=(TEMPLATES / "style.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def cell(value: object, name: str = "") -> str:
    """A value as tables show it: fractions with three decimals, percentages with two."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if name in FRACTIONS else f"{value:.2f}"
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def data_uri(picture: Path) -> str:
    """A picture file for the page to hold."""
    kind = {".jpg": "jpeg", ".png": "png"}[picture.suffix]
    return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def column(name: str) -> str:
    """The heading of a column."""
    return NAMES.get(name, name.replace("_", " "))
