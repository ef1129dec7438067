"""Loading SAM2 by name and path, and what it says of files that are none."""

import shutil
from pathlib import Path

import pytest
import torch
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

from sola_model.extraction.checkpoints import config_path
from sola_model.extraction.sam2_models import (
    DEMO_CHECKPOINT,
    build_sam2,
    load_sam2,
    resolve_checkpoint,
)


def test_the_embedded_model_loads_frozen():
    model = load_sam2("demo")
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) == 1_384_594
    assert not any(p.requires_grad for p in model.parameters())


def test_an_official_checkpoint_loads_by_its_name(tmp_path):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    state = build_sam2(config_path(path)).state_dict()
    torch.save({"model": state}, path)
    model = load_sam2(path)
    assert (model.image_size, model.hidden_dim) == (1024, 256)
    assert torch.equal(model.no_mem_embed, state["no_mem_embed"])


@pytest.mark.parametrize("size", ["tiny", "small", "base_plus", "large"])
@pytest.mark.parametrize("family", ["sam2", "sam2.1"])
def test_every_official_size_can_be_built(tmp_path, family, size):
    model = build_sam2(config_path(tmp_path / f"{family}_hiera_{size}.pt"))
    assert (model.image_size, model.hidden_dim, model.num_maskmem) == (1024, 256, 7)
    assert model.proj_tpos_enc_in_obj_ptrs == (family == "sam2.1")


def test_official_names_and_hub_ids_find_the_official_files(monkeypatch, tmp_path):
    """As in the package's own table; nothing is downloaded."""
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *where: "/".join(where))
    for hub_id, (config, file) in HF_MODEL_ID_TO_FILENAMES.items():
        for name in (hub_id, Path(file).stem):
            path = resolve_checkpoint(name)
            assert str(path) == f"{hub_id}/{file}"
            assert str(config_path(path)).endswith(config)


def test_holes_are_not_filled_and_objects_may_overlap():
    model = build_sam2(DEMO_CHECKPOINT.with_suffix(".yaml"))
    assert not model.non_overlap_masks_for_mem_enc
    assert not getattr(model, "fill_hole_area", 0)


def test_memory_that_skips_frames(tmp_path):
    config = DEMO_CHECKPOINT.with_suffix(".yaml").read_text()
    path = tmp_path / "mine.yaml"
    path.write_text(config + "  memory_temporal_stride_for_eval: 2\n")
    with pytest.raises(ValueError, match="memory_temporal_stride_for_eval is 2"):
        build_sam2(path)


def test_a_file_that_is_no_checkpoint(tmp_path):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="is not a SAM2 checkpoint"):
        load_sam2(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="is not a SAM2 checkpoint"):
        load_sam2(path)


def test_weights_of_another_size(tmp_path):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    shutil.copy(DEMO_CHECKPOINT, path)
    with pytest.raises(ValueError, match="do not fit the architecture"):
        load_sam2(path)


def test_unknown_names(tmp_path):
    with pytest.raises(ValueError, match="no SAM2 checkpoint file 'sam3'"):
        resolve_checkpoint("sam3")
    (tmp_path / "mine.pt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot tell the architecture of 'mine.pt'"):
        load_sam2(tmp_path / "mine.pt")
