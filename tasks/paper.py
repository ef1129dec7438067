"""Every number of the paper (SOLA) that is used here, and what may be compared with it."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of a table of the paper; `parameters`: trainable ones, as printed."""

    method: str
    jf: float
    j: float
    f: float
    parameters: str = ""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper, or the part of it for one data set."""

    title: str
    evaluated_on: str
    rows: tuple[Row, ...]


MEVIS = PaperTable(
    "Table 1, trained on MeViS",
    "MeViS valid",
    (
        Row("URVOS", 27.8, 25.7, 29.9),
        Row("LBDT", 29.3, 27.8, 30.8, "95.6 M"),
        Row("MTTR", 30.0, 28.8, 31.2),
        Row("ReferFormer", 31.0, 29.8, 32.2, "112.9 M"),
        Row("VLT+TC", 35.5, 33.6, 37.3, "38.3 M"),
        Row("LMPM", 37.2, 34.2, 40.2, "66.4 M"),
        Row("HTR", 42.7, 39.9, 45.5),
        Row("DsHmp", 46.4, 43.0, 49.8, "92.4 M"),
        Row("SOLA", 48.6, 45.2, 52.1, "32.9 M"),
    ),
)
ZERO_SHOT = "Table 2, zero-shot, trained on MeViS"
JOINT = "Table 3, trained on MeViS and Ref-YouTube-VOS"
TABLES = {
    "mevis": (
        MEVIS,
        PaperTable(
            JOINT,
            "MeViS valid",
            (
                Row("ReferFormer", 36.6, 34.1, 39.1),
                Row("LMPM", 40.5, 37.8, 43.2),
                Row("DsHmp", 42.5, 37.5, 47.4),
                Row("SOLA", 48.9, 45.2, 52.6),
            ),
        ),
    ),
    "ref-youtube-vos": (
        PaperTable(
            ZERO_SHOT,
            "Ref-YouTube-VOS valid",
            (
                Row("ReferFormer", 35.0, 34.2, 35.8),
                Row("LMPM", 31.5, 30.0, 32.9),
                Row("DsHmp", 45.8, 43.7, 47.9),
                Row("SOLA", 47.9, 44.3, 51.5),
            ),
        ),
        PaperTable(
            JOINT,
            "Ref-YouTube-VOS valid",
            (
                Row("ReferFormer", 46.8, 46.2, 47.5),
                Row("LMPM", 37.6, 36.0, 39.2),
                Row("DsHmp", 51.4, 48.5, 54.3),
                Row("SOLA", 55.4, 52.0, 58.8),
            ),
        ),
    ),
    "ref-davis17": (
        PaperTable(
            ZERO_SHOT,
            "Ref-DAVIS17 val",
            (
                Row("ReferFormer", 40.5, 36.8, 44.2),
                Row("LMPM", 39.9, 36.7, 43.2),
                Row("DsHmp", 42.6, 37.8, 47.3),
                Row("SOLA", 45.4, 43.0, 47.7),
            ),
        ),
    ),
}
ABLATIONS = PaperTable(
    "Tables 4 and 5, ablations",
    "MeViS valid",
    (
        Row("without selection module (Grounding DINO alone)", 36.9, 30.0, 43.8),
        Row("without alignment loss", 44.5, 41.4, 47.6),
        Row("one of motion and inter-object attention, the lower", 44.3, 41.6, 47.0),
        Row("one of motion and inter-object attention, the higher", 44.9, 42.2, 47.0),
        Row("SOLA", 48.6, 45.2, 52.1),
    ),
)


Scores = tuple[float, float, float]
"""J&F, J and F in percent, as the paper prints them."""


def _sola(table: PaperTable) -> Scores:
    row = table.rows[-1]
    assert row.method == "SOLA"
    return row.jf, row.j, row.f


def _of_data_sets(title: str) -> dict[str, Scores]:
    return {name: _sola(t) for name, tables in TABLES.items() for t in tables if t.title == title}


FULL_METHOD = _sola(MEVIS)
FULL_METHOD_PARAMETERS = 32.9  # millions
ZERO_SHOT_SOLA = _of_data_sets(ZERO_SHOT)
JOINT_SOLA = _of_data_sets(JOINT)
WITHOUT_SELECTION, WITHOUT_ALIGNMENT = ((r.jf, r.j, r.f) for r in ABLATIONS.rows[:2])
LAYERS = {1: (42.5, 40.0, 45.1), 2: FULL_METHOD, 3: (48.2, 44.8, 51.5)}  # Table A.2b
SEVERITY_5 = {  # Table A.1
    "gaussian_noise": (44.4, 40.5, 48.3),
    "motion_blur": (39.8, 36.6, 43.0),
}
CLASS_ACCURACY = {"pascal-voc": 0.853}  # of a linear read-out, section 4.5


def paper_tables(dataset: str) -> tuple[PaperTable, ...]:
    """The paper's tables on a data set in any version; of data that it does not have, Table 1."""
    return TABLES.get(re.sub(r"-v\d+$", "", dataset), (MEVIS,))


def comparable(dataset: str, split: str) -> str:
    """In a sentence, how far this run's figures may be compared with the paper's."""
    here = f"{dataset}/{split}"
    if dataset == "mevis":
        return (
            "The paper's figures are for MeViS valid, scored by the benchmark's server; this run's "
            f"are for {here}. These are other videos of the same data set."
        )
    if dataset == "mevis-v2":
        return (
            f"The paper's figures are for MeViS v1 valid; this run's are for {here}, which has "
            "other expressions, some without target. They cannot be compared."
        )
    if dataset == "ref-youtube-vos":
        return f"The paper's figures are for Ref-YouTube-VOS valid; this run's are for {here}."
    if dataset == "ref-davis17":
        return (
            "The paper's figures merge the objects of each annotator into one label per pixel; "
            f"this run's, for {here}, score each expression by itself. They cannot be compared; "
            "sola submit and sola score give the figure that can."
        )
    return (
        "The paper's figures are for MeViS and stand here for orientation alone: "
        f"{here} is other data, so they cannot be compared with this run's."
    )
