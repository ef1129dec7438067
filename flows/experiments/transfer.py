"""The method as a whole: paper Table 1, on other data sets (2, 3), and without selection (4)."""

from dataclasses import replace

from flows.experiments.setup import Setup, Variant, compare_variants, measured_scores
from flows.fanout import carry_out
from tasks import paper
from tasks.experiments.measured import Measured, mean_scores
from tasks.runs import find_run
from tasks.stages.baseline import baseline_plan, baseline_run
from warehouse import WarehouseError
from warehouse.demo_data import write_dataset

FULL = paper.FULL_METHOD
OTHERS = {"ref-youtube-vos": ("train", "valid"), "ref-davis17": ("train", "val")}
LONG, LONG_FRAMES = {"train": 100, "valid_u": 24}, 48  # of the embedded "demo-long"


def table1(setup: Setup) -> list[Measured]:
    """The full method: J&F and the number of trainable parameters (paper Table 1)."""
    rows = compare_variants(setup, {"SOLA": ([], FULL)})
    parameters = find_run(setup.store, rows[0].run_id).parameters
    size = Measured(
        variant="SOLA",
        metric="trainable parameters",
        unit="M",
        value=parameters / 1e6,
        paper=paper.FULL_METHOD_PARAMETERS,
        measured_on=rows[0].measured_on,
    )
    return [*rows, size]


def table2(setup: Setup) -> list[Measured]:
    """Zero-shot: trained on one data set, evaluated on others (paper Table 2).

    The others are those in the warehouse: ref-youtube-vos/valid and ref-davis17/val, with labels.
    Of data set "demo" it is "demo-long", embedded clips of twice the length.
    """
    others = _others(setup)
    setup.prepare()
    for other in others:
        other.prepare(other.validation)
    return [
        row
        for other in others
        for seed, run_id in enumerate(setup.full_method())
        for row in measured_scores(
            setup, f"trained on {setup.dataset}", seed, run_id,
            paper.ZERO_SHOT_SOLA.get(other.dataset), other.dataset, other.validation,
        )
    ]  # fmt: skip


def table3(setup: Setup) -> list[Measured]:
    """Trained on two data sets together, and on the first alone (paper Table 3)."""
    other = _others(setup)[0]
    setup.prepare()
    other.prepare()
    rows = []
    for variant, together in (
        (f"trained on {setup.dataset}", []),
        (
            f"trained on {setup.dataset} and {other.dataset}",
            [(other.dataset, other.split, other.validation)],
        ),
    ):
        run_ids = setup.trained([Variant(seed, others=together) for seed in range(setup.seeds)])
        for where in (setup, other):
            for seed, run_id in enumerate(run_ids):
                printed = paper.JOINT_SOLA.get(where.dataset) if together else None
                rows += measured_scores(
                    setup, variant, seed, run_id, printed, where.dataset, where.validation
                )
    return rows


def table4(setup: Setup) -> list[Measured]:
    """Without and with the selection module: the detector's best boxes alone (paper Table 4).

    Needs a detector.
    """
    if not setup.any_detector:
        raise WarehouseError(
            "what there is without the selection module are boxes: --detector NAME"
        )
    rows = compare_variants(setup, {"with selection module": ([], FULL)})
    recipe = replace(setup.settings, detector=setup.any_detector)
    plan = baseline_plan(setup.store, setup.dataset, setup.validation, recipe)
    carry_out(plan, setup.workers)
    run_id = baseline_run(recipe)
    printed = dict(zip(("jf", "j", "f"), paper.WITHOUT_SELECTION, strict=True))
    scores = mean_scores(setup.store, run_id, setup.dataset, setup.validation, stage="baseline")
    without = [
        Measured(
            variant="without selection module",
            metric=metric,
            value=value,
            paper=printed[metric] / 100,
            run_id=run_id,
            measured_on=rows[0].measured_on,
        )
        for metric, value in scores.items()
    ]
    return [*without, *rows]


def _others(setup: Setup) -> list[Setup]:
    """The same experiment on the data sets that the paper transfers to.

    Raises:
        WarehouseError: the paper has none for this data set, or none is in the warehouse.
    """
    if setup.dataset == "demo":
        root = setup.store.work_folder() / "data-set-long"
        write_dataset(root, LONG, seed=1, frames=LONG_FRAMES)
        return [replace(setup, dataset="demo-long", root=str(root))]
    if setup.dataset != "mevis":
        raise WarehouseError(f"it starts from data set mevis (or demo), not from {setup.dataset}")
    others = [
        replace(setup, dataset=name, root=None, split=split, validation=validation)
        for name, (split, validation) in OTHERS.items()
    ]
    there = [
        other
        for other in others
        if setup.store.current("precompute", dataset=other.dataset, split=other.validation)
    ]
    if not there:
        setup.require(others[0].dataset, others[0].validation)
    return there
