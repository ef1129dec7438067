"""Training metrics as TensorBoard event files, for those who watch a run there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sola_model.training.loop import Progress


@contextmanager
def event_files(folder: Path | None) -> Iterator[Callable[[Progress], None]]:
    """Write every epoch's metrics into `folder` (None: nowhere); yields what to call with them.

    Raises ValueError when the package tensorboard is not installed.
    """
    if folder is None:
        yield lambda progress: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"TensorBoard event files need a package that is not installed ({error}). Run `pip "
            "install tensorboard`, or leave out --tensorboard: the warehouse's table "
            "training_metrics has the same numbers."
        ) from error
    with SummaryWriter(str(folder)) as writer:

        def write(progress: Progress) -> None:
            if progress.metrics is None:
                return
            for name, value in asdict(progress.metrics).items():
                if value is not None and name != "epoch":
                    writer.add_scalar(name, value, progress.epoch)
            writer.flush()

        yield write
