"""The command for a video of one's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.common import HERE, WarehousePath, Workers, console, running

if TYPE_CHECKING:
    from tasks.own_video.outputs import Found


def segment(
    video: Annotated[Path, typer.Argument(help="Video file, or folder of frames.")],
    sentences: Annotated[list[str], typer.Argument(help="What to find, each in quotes.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Overlay video to write; default: VIDEO-segmented.mp4 here."),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder for masks: SENTENCE NUMBER/FRAME.png.")
    ] = None,
    tracks: Annotated[
        Path | None, typer.Option("--json", help="File for tracks, scores, areas, boxes, RLE.")
    ] = None,
    run: Annotated[str | None, typer.Option(help="Run id; default: the newest run.")] = None,
    sam2: Annotated[
        str | None, typer.Option(help="SAM2: path, hub id or 'demo'; default: the run's.")
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Grounding DINO whose boxes prompt as well, likewise.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Take only every so many frames.")] = 1,
    clip_frames: Annotated[
        int, typer.Option(min=1, help="A longer video is segmented in clips; tracks end there.")
    ] = 240,
    fps: Annotated[
        float | None,
        typer.Option(min=0.1, help="Of the overlay, per second; default: the video's, or 24."),
    ] = None,
    warehouse: WarehousePath = HERE,
    workers: Workers = None,
) -> None:
    """Find what sentences mean in a video of your own.

    Stopped, the same command continues.

    Example: `sola segment clip.mp4 "the dog running to the left" "the man" --masks masks`
    """
    from flows.segment import segment as flow

    if not (out or masks or tracks):
        out = Path(f"{video.resolve().stem}-segmented.mp4")
    overlay, folder, file = (str(place) if place else None for place in (out, masks, tracks))
    try:
        with running():
            found = flow(
                warehouse, str(video), sentences, run, overlay, folder, file, sam2, detector,
                every, clip_frames, fps, workers,
            )  # fmt: skip
    except KeyboardInterrupt:
        console.print("stopped; the same command continues where this one was")
        raise typer.Exit(130) from None
    for each in found:
        typer.echo(_summary(each))
    for place in filter(None, (out, masks, tracks)):
        typer.echo(place)


def _summary(found: "Found") -> str:
    if found.tracks:
        share = f"{found.tracks} track{'s' * (found.tracks > 1)}, the best {found.best:.0%} sure"
        return f'"{found.sentence}": {share}, visible in {found.frames} frames'
    if found.candidates:
        best = f"the best of {found.candidates} tracks is {found.best:.0%} sure"
        return f'"{found.sentence}": nothing found; {best}'
    return f'"{found.sentence}": nothing found, SAM2 made no tracks; try another (--sam2)'
