"""Load SAM2 by official name, hub id or path. The only file that imports package `sam2`.

A checkpoint is a file `{"model": state_dict}` as Meta publishes them. Its architecture is the
`.yaml` of the same name beside it if there is one (the embedded small model), else the official
configuration that the file name stands for, e.g. `sam2.1_hiera_large.pt`.
"""

import hashlib
import pickle
import warnings
from pathlib import Path

import sam2
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.utils.amg import MaskData

__all__ = [
    "DEMO_CHECKPOINT",
    "MaskData",
    "SAM2AutomaticMaskGenerator",
    "SAM2Base",
    "SAM2ImagePredictor",
    "build_sam2",
    "checkpoint_identity",
    "load_sam2",
    "resolve_checkpoint",
]

# The package's image transforms use torch.jit.script, which newer versions of torch warn of.
warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)

DEMO_CHECKPOINT = Path(__file__).parents[1] / "demo" / "sam2_demo.pt"

OFFICIAL_SIZES = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


def resolve_checkpoint(name: str | Path) -> Path:
    """Find a checkpoint file by path, or by name: "demo", or one that can be downloaded.

    Those are Meta's models: `sam2.1_hiera_large`, or as hub id `facebook/sam2.1-hiera-large`.

    Raises:
        ValueError: there is no such file and the name is neither "demo" nor a hub id.
    """
    if str(name) == "demo":
        return DEMO_CHECKPOINT
    path = Path(name)
    if path.is_file():
        return path
    official = str(name).removeprefix("facebook/").replace("-", "_")
    if _official_config(official):
        import huggingface_hub

        repository = f"facebook/{official.replace('_', '-')}"
        return Path(huggingface_hub.hf_hub_download(repository, f"{official}.pt"))
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
    official = str(name).removeprefix("facebook/").replace("-", "_")
    if not _official_config(official):
        return False
    import huggingface_hub

    repository = f"facebook/{official.replace('_', '-')}"
    found = huggingface_hub.try_to_load_from_cache(repository, f"{official}.pt")
    return isinstance(found, str)


def load_sam2(
    name: str | Path, device: str | torch.device = "cpu", *, compile: bool = False
) -> SAM2Base:
    """The frozen SAM2 of a checkpoint, in evaluation mode (see `resolve_checkpoint` for names).

    Args:
        compile: torch.compile the image encoder and the memory attention; worth its minutes for
            many videos on CUDA.

    Raises:
        ValueError: the file is not a SAM2 checkpoint, or its weights do not fit its architecture.
    """
    path = resolve_checkpoint(name)
    model, state = build_sam2(_config_path(path)), _read_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the weights in {path} do not fit the architecture its name stands for "
            f"({_config_path(path).name}): {str(error)[:500]}. Keep the official file name."
        ) from error
    model = model.requires_grad_(False).eval().to(device)
    if compile:
        model.image_encoder.compile()
        model.memory_attention.compile(dynamic=True)  # memory grows over the first steps
    return model


def build_sam2(config: Path) -> SAM2Base:
    """The untrained SAM2 that a configuration file (the official yaml format) describes.

    With the settings that the package's builders add (`sam2.build_sam`), but for `fill_hole_area`,
    which acts on CUDA only and so would make CPU and GPU differ: holes are never filled. Objects
    may overlap; else they would depend on their batch mates.

    Raises:
        ValueError: the architecture skips frames in its memory, which extraction does not do.
    """
    settings = OmegaConf.load(config)
    assert isinstance(settings, DictConfig)
    stride = settings.model.get("memory_temporal_stride_for_eval", 1)
    if stride != 1:
        raise ValueError(f"{config}: memory_temporal_stride_for_eval is {stride}; only 1 is valid")
    stability = {
        "dynamic_multimask_via_stability": True,
        "dynamic_multimask_stability_delta": 0.05,
        "dynamic_multimask_stability_thresh": 0.98,
    }
    return instantiate(
        settings.model,
        sam_mask_decoder_extra_args=stability,
        binarize_mask_from_pts_for_mem_enc=True,
        non_overlap_masks_for_mem_enc=False,
        _recursive_=True,
    )


def _config_path(checkpoint: Path) -> Path:
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


def _official_config(name: str) -> Path | None:
    """The configuration of an official model, e.g. sam2.1_hiera_large."""
    family, _, size = name.partition("_hiera_")
    if family not in ("sam2", "sam2.1") or size not in OFFICIAL_SIZES:
        return None
    folder = Path(sam2.__file__).parent / "configs" / family
    return folder / f"{family}_hiera_{OFFICIAL_SIZES[size]}.yaml"


def checkpoint_identity(name: str | Path) -> str:
    """sha256 of a checkpoint's file: what names the weights in fingerprints.

    Raises:
        ValueError: there is no such checkpoint, or the file is none.
    """
    path = resolve_checkpoint(name)
    _config_path(path), _read_state(path)  # a wrong file is one error now, not one per video
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return checkpoint["model"]
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{path} is not a SAM2 checkpoint ({reason}). Valid is a torch file holding "
            "{'model': state_dict}, as Meta publishes them; download it again."
        ) from error
