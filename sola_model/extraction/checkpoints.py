"""Find SAM2 checkpoints by official name, hub id or path, without loading a model.

A checkpoint is a file `{"model": state_dict}` as Meta publishes them. Its architecture is the
`.yaml` of the same name beside it if there is one (the embedded small model), else the official
configuration that the file name stands for, e.g. `sam2.1_hiera_large.pt`.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DEMO_CHECKPOINT = Path(__file__).parents[1] / "demo" / "sam2_demo.pt"

OFFICIAL_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def resolve_checkpoint(name: str | Path) -> Path:
    """Find a checkpoint file by path, or by name: "demo", or one that can be downloaded.

    Those are Meta's models: `sam2.1_hiera_large`, or as hub id `facebook/sam2.1-hiera-large`.

    Raises:
        ValueError: there is no such file and the name is neither "demo" nor a hub id.
    """
    check_checkpoint(name)
    if str(name) == "demo":
        return DEMO_CHECKPOINT
    path = Path(name)
    if path.is_file():
        return path
    import huggingface_hub

    official = _official_name(name)
    repository = f"facebook/{official.replace('_', '-')}"
    return Path(huggingface_hub.hf_hub_download(repository, f"{official}.pt"))


def check_checkpoint(name: str | Path) -> None:
    """Raise ValueError for a name that `resolve_checkpoint` cannot find, and download nothing."""
    if str(name) != "demo" and not Path(name).is_file() and not _official_name(name):
        raise ValueError(
            f"no SAM2 checkpoint file {str(name)!r}. Give the path of an official file such as "
            "sam2.1_hiera_large.pt, a name such as sam2.1_hiera_large or its hub id "
            f"facebook/sam2.1-hiera-large (sizes: {', '.join(OFFICIAL_SIZES)}; also of sam2), or "
            "'demo' for the embedded small model."
        )


def is_local(name: str | Path) -> bool:
    """Whether `resolve_checkpoint` finds a checkpoint without a download."""
    if str(name) == "demo" or Path(name).is_file():
        return True
    if not (official := _official_name(name)):
        return False
    import huggingface_hub

    repository = f"facebook/{official.replace('_', '-')}"
    found = huggingface_hub.try_to_load_from_cache(repository, f"{official}.pt")
    return isinstance(found, str)


def config_path(checkpoint: Path) -> Path:
    """The architecture of a checkpoint. Raises ValueError when its name does not tell."""
    beside = checkpoint.with_suffix(".yaml")
    if beside.is_file():
        return beside
    if config := _official_config(checkpoint.stem):
        return config
    raise ValueError(
        f"cannot tell the architecture of {checkpoint.name!r}. Valid names are "
        f"sam2[.1]_hiera_{{{'|'.join(OFFICIAL_SIZES)}}}.pt, or any name with its configuration "
        f"beside it as {beside.name}."
    )


def _official_name(name: str | Path) -> str:
    """A name or hub id as official files are named, such as sam2.1_hiera_large; "": it is none."""
    official = str(name).removeprefix("facebook/").replace("-", "_")
    return official if _official_config(official) else ""


def _official_config(name: str) -> Path | None:
    """The configuration of an official model, e.g. sam2.1_hiera_large."""
    family, _, size = name.partition("_hiera_")
    if family not in ("sam2", "sam2.1") or size not in OFFICIAL_SIZES:
        return None
    package = find_spec("sam2")  # its import is slow, too
    assert package and package.origin
    folder = Path(package.origin).parent / "configs" / family
    return folder / f"{family}_hiera_{OFFICIAL_SIZES[size]}.yaml"


def checkpoint_identity(name: str | Path) -> str:
    """sha256 of a checkpoint's file: what names the weights in fingerprints.

    Raises:
        ValueError: there is no such checkpoint, or the file is none.
    """
    path = resolve_checkpoint(name)
    config_path(path), read_state(path)  # a wrong file is one error now, not one per video
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state(path: Path) -> "dict[str, Tensor]":
    """The weights in a checkpoint's file. Raises ValueError for another file."""
    import torch  # slow: what only looks for a checkpoint does without

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return checkpoint["model"]
    except Exception as error:  # torch.load raises whatever the content happens to cause
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a SAM2 checkpoint ({reason}). Valid is a torch file holding "
            "{'model': state_dict}, as Meta publishes them; download it again."
        ) from error
