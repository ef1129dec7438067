"""Video models of `transformers` in the words of `SAM2Base`: all of extraction runs them as it is.

`Sam2VideoModel`, `EdgeTamVideoModel` and `Sam3TrackerVideoModel` have parts of the same names. What
their `forward` does with an inference session, a frame and an object at a time, is done here
with the memory that `sola_model.extraction.propagation` keeps. Prompt frames are the official
predictor's, which `transformers` differs from in three places:

- the object pointer of a mask prompt is that of the single-mask token; `transformers` takes that
  of the best of three masks;
- memory of a mask prompt is made of the mask after a trip through the size of the logits (in
  `propagation`); `transformers` makes it of the mask as it is;
- memory is kept in bfloat16; EdgeTAM of `transformers` keeps it as it is.

B objects, D channels of a token, N places of a memory.

Source: `sam2.sam2_video_predictor_legacy`; `transformers.models.sam2_video.modeling_sam2_video`.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import Tensor

from sola_model.extraction.frames import MEAN, STD
from sola_model.extraction.trackers import VIDEO_MODELS, is_official

HALF = (0.5, 0.5, 0.5)  # mean and standard deviation of a channel for the SAM3 tracker


def load_video_model(tracker: str, name: str, device: str | torch.device = "cpu") -> "VideoModel":
    """The frozen model of a folder that `save_pretrained` wrote, or of a hub id.

    For `sam2_video` the checkpoints that `load_sam2` takes are converted.

    Raises:
        ValueError: there is no such model, or the weights do not fit its architecture.
    """
    if is_official(tracker, name):
        from sola_model.extraction.converted import converted
        from sola_model.extraction.sam2_models import load_sam2

        return VideoModel(converted(load_sam2(name)).to(device))
    kind = VIDEO_MODELS[tracker]
    try:
        model, report = getattr(transformers, kind).from_pretrained(
            name, dtype=torch.float32, output_loading_info=True
        )
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{name} cannot be loaded as {kind}: {error}") from error
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{name} has no weights of {len(missing)} parameters of {kind}, such as "
            f"{missing[0]}: give the folder or hub id of a complete model."
        )
    return VideoModel(model.requires_grad_(False).eval().to(device))


class VideoModel:
    """What extraction uses of `SAM2Base`. Objects go through one by one, as in `transformers`."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.image_size: int = model.image_size
        self.hidden_dim: int = model.hidden_dim
        self.num_maskmem: int = model.num_maskmem
        self.max_obj_ptrs_in_encoder: int = model.config.max_object_pointers_in_encoder
        self.no_mem_embed: Tensor = model.no_memory_embedding
        self.sam_prompt_encoder = _PromptEncoder(model)
        mean, std = (HALF, HALF) if "Sam3" in type(model).__name__ else (MEAN, STD)
        self._scale_C11, self._shift_C11 = (
            torch.tensor(each, device=self.device)[:, None, None]
            for each in (
                [ours / theirs for ours, theirs in zip(STD, std, strict=True)],
                [(a - b) / s for a, b, s in zip(MEAN, mean, std, strict=True)],
            )
        )

    @property
    def device(self) -> torch.device:
        return self.model.device

    def forward_image(self, images_BCHW: Tensor) -> Any:
        """Features of frames that are normalised as SAM2 takes them."""
        theirs_BCHW = images_BCHW * self._scale_C11 + self._shift_C11
        return self.model.get_image_features(theirs_BCHW, return_dict=True)

    def _prepare_backbone_features(self, encoded: Any) -> tuple:
        sizes = self.model.backbone_feature_sizes
        return encoded, encoded.fpn_hidden_states, encoded.fpn_position_encoding, sizes

    def sam_mask_decoder(
        self,
        *,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        high_res_features: list[Tensor],
        **unused: Any,
    ) -> tuple[Tensor, ...]:
        """Masks (logits), their IoU, tokens and scores of B prompts of one image."""
        decoded = self.model.mask_decoder(
            image_embeddings=image_embeddings,
            image_positional_embeddings=image_pe,
            sparse_prompt_embeddings=sparse_prompt_embeddings,
            dense_prompt_embeddings=dense_prompt_embeddings,
            multimask_output=multimask_output,
            high_resolution_features=high_res_features,
        )
        return tuple(each[0] for each in decoded)

    def track_step(
        self,
        *,
        frame_idx: int,
        current_vision_feats: Sequence[Tensor],
        current_vision_pos_embeds: Sequence[Tensor],
        feat_sizes: Sequence[tuple[int, int]],
        mask_inputs: Tensor | None,
        output_dict: dict[str, dict],
        num_frames: int,
        track_in_reverse: bool = False,
        **unused: Any,
    ) -> dict[str, Tensor]:
        """Mask logits, object pointers, scores and, of a frame without prompt, the memory."""
        outputs = []
        for b in range(current_vision_feats[-1].shape[1]):
            levels = [level[:, b : b + 1] for level in current_vision_feats]
            *high, top = (
                level.permute(1, 2, 0).view(1, -1, *size)
                for level, size in zip(levels, feat_sizes, strict=True)
            )
            if mask_inputs is not None:
                outputs.append(self._prompted(high, top, mask_inputs[b : b + 1]))
                continue
            fused = self.model._prepare_memory_conditioned_features(
                inference_session=SimpleNamespace(
                    output_dict_per_obj=[_of_object(output_dict, b)], dtype=levels[-1].dtype
                ),
                frame_idx=frame_idx,
                obj_idx=0,
                is_initial_conditioning_frame=False,
                current_vision_features=levels[-1],
                current_vision_positional_embeddings=current_vision_pos_embeds[-1][:, b : b + 1],
                num_total_frames=num_frames,
                track_in_reverse_time=track_in_reverse,
            )
            decoded = self.model._single_frame_forward(
                image_embeddings=[*high, fused],
                multimask_output=self.model._use_multimask(False, None),
            )
            memory, _ = self._encode_new_memory(
                levels, feat_sizes, decoded.high_res_masks, decoded.object_score_logits, False
            )
            outputs.append(_output(decoded) | {"maskmem_features": memory})
        return {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}

    def _prompted(self, high: list[Tensor], top: Tensor, mask_11HW: Tensor) -> dict[str, Tensor]:
        """A mask prompt is its own output; the decoder gives the pointer."""
        output = self.model._use_mask_as_output(top, high, mask_11HW)
        decoded = self.model._single_frame_forward(
            input_masks=self.model.mask_downsample(mask_11HW),
            image_embeddings=[*high, top],
            multimask_output=False,
        )
        output.object_pointer = torch.where(
            mask_11HW.any(), decoded.object_pointer, self.model.no_object_pointer
        )
        return _output(output)

    def _encode_new_memory(
        self,
        current_vision_feats: Sequence[Tensor],
        feat_sizes: object,
        pred_masks_high_res: Tensor,
        object_score_logits: Tensor,
        is_mask_from_pts: bool,
    ) -> tuple[Tensor, list[Tensor]]:
        """Memories of B objects and their positions, each as the model has that of one object."""
        encoded = [
            self.model._encode_new_memory(
                current_vision_feats=current_vision_feats[-1][:, b : b + 1],
                pred_masks_high_res=pred_masks_high_res[b : b + 1],
                object_score_logits=object_score_logits[b].view(1, 1, 1),
                is_mask_from_pts=is_mask_from_pts,
            )
            for b in range(len(pred_masks_high_res))
        ]
        memories, positions = (torch.stack(each) for each in zip(*encoded, strict=True))
        return memories, [positions]


class _PromptEncoder:
    """Points and boxes as the package's predictor gives them (boxes: points with labels 2, 3)."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.get_dense_pe = model.get_image_wide_positional_embeddings

    def __call__(self, points: tuple[Tensor, Tensor], **unused: None) -> tuple[Tensor, Tensor]:
        coordinates_BN2, labels_BN = points
        return self._model.prompt_encoder(
            input_points=coordinates_BN2[None],
            input_labels=labels_BN[None],
            input_boxes=None,
            input_masks=None,
        )


def _output(decoded: Any) -> dict[str, Tensor]:
    """What a model says of one object, as `SAM2Base` names it."""
    return {
        "pred_masks": decoded.pred_masks,
        "obj_ptr": decoded.object_pointer.view(1, -1),
        "object_score_logits": decoded.object_score_logits.view(1, 1),
    }


def _of_object(output_dict: dict[str, dict], b: int) -> dict[str, dict]:
    """The memories of one object, as `transformers` names them."""

    def renamed(output: dict) -> dict:
        features = output["maskmem_features"]  # None: only the pointer is seen any more
        return {
            "maskmem_features": None if features is None else features[b],
            "maskmem_pos_enc": output["maskmem_pos_enc"][0][b],
            "object_pointer": output["obj_ptr"][b : b + 1],
        }

    return {
        kind: {time: renamed(output) for time, output in outputs.items()}
        for kind, outputs in output_dict.items()
    }
