"""Train the embedded small Grounding DINO on the embedded data's generator. One CPU core, an hour.

    OMP_NUM_THREADS=1 python scripts/train_demo_detector.py --out sola_model/demo/detector

The result is an ordinary `transformers` folder (GroundingDinoForObjectDetection and its
processor), loaded as `IDEA-Research/grounding-dino-tiny` would be. An interrupted run continues
when it is started again.

The loss is Grounding DINO's (focal loss between boxes and words, L1 and GIoU of boxes matched one
to one) on every decoder layer. The encoder's proposals are trained more densely: every position
near the centre of a target proposes it, which takes far fewer steps. Linear heads, thrown away
afterwards, make the image features near the centre of a shape say of which kind it is: colours are
learnt without, kinds of shape are not.

Shapes: G images, R rows (captions; each image has `CAPTIONS`), Q queries or encoder positions,
W text tokens, K targets of a row.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from demo_detection import Sample, phrases, random_caption, random_sample
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torchvision.ops import (
    box_convert,
    generalized_box_iou,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    GroundingDinoProcessor,
    SwinConfig,
)

from sola_model.detection.detector import DEMO_DETECTOR
from sola_model.detection.grounding_dino import SharedBackbone
from warehouse.demo_data import describe, random_scene
from warehouse.demo_data.scene import HEIGHT, KINDS, WIDTH

IMAGES, CAPTIONS = 8, 2
LONGEST = 256  # tokens
# transformers finds the ends of phrases by these ids of BERT's vocabulary.
FIXED_IDS = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103,
             ".": 1012, "?": 1029}  # fmt: skip


def build_tokenizer() -> BertTokenizer:
    """BERT's tokenizer with the words of the generator; other words fall apart into letters."""
    rng = np.random.default_rng(0)
    texts = [d.text for _ in range(2000) for d in describe(random_scene(rng), rng)]
    words = sorted({word for text in texts for word in text.replace(",", " ").split()})
    letters = [chr(c) for c in range(33, 127) if chr(c) not in ".?" and not chr(c).isupper()]
    pieces = [*letters, *["##" + c for c in letters if c.isalnum()], *words]
    pieces = [piece for piece in dict.fromkeys(pieces) if piece not in FIXED_IDS]
    vocabulary = dict(FIXED_IDS)
    vocabulary |= {piece: 200 + number for number, piece in enumerate(pieces)}
    taken = set(vocabulary.values())
    vocabulary |= {f"[unused{i}]": i for i in range(1030) if i not in taken}
    return BertTokenizer(vocab=vocabulary, do_lower_case=True, model_max_length=LONGEST)


def build_model(vocabulary: int) -> GroundingDinoForObjectDetection:
    """The architecture of grounding-dino-tiny, made small."""
    spread = 0.08  # of initial weights: BERT's 0.02 is meant for far wider layers
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=WIDTH,
            embed_dim=48,
            depths=[1, 1, 2],
            num_heads=[2, 4, 8],
            window_size=7,
            mlp_ratio=3,
            out_indices=[2, 3],
            drop_path_rate=0.0,
            initializer_range=spread,
        ),
        text_config=BertConfig(
            vocab_size=vocabulary,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=LONGEST,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            initializer_range=spread,
        ),
        d_model=64,
        num_queries=24,
        num_feature_levels=2,
        encoder_layers=2,
        decoder_layers=2,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_n_points=2,
        decoder_n_points=2,
        max_text_len=LONGEST,
        dropout=0.0,
        fusion_droppath=0.0,
        init_std=spread,
    )
    model = GroundingDinoForObjectDetection(config)
    for layer in model.model.encoder.layers:  # 1e-4 by default: hours until language matters
        for scale in (layer.fusion_layer.vision_param, layer.fusion_layer.text_param):
            nn.init.constant_(scale, 0.3)
    # Scores are dot products of normalised features: by default they start far from 0.
    last_norm = model.model.encoder.layers[-1].text_enhancer_layer.layer_norm_after
    nn.init.constant_(last_norm.weight, 1 / 8)
    return model


class Batch:
    """Images with boxes and kinds of their shapes, and per caption boxes (K, 4), words (K, W)."""

    def __init__(self, rng: np.random.Generator, processor: GroundingDinoProcessor) -> None:
        samples = [random_sample(rng) for _ in range(IMAGES)]
        rows = [(s, random_caption(rng, s.scene)) for s in samples for _ in range(CAPTIONS)]
        self.images = processor.image_processor(
            [s.image_HW3 for s in samples],
            size={"height": HEIGHT, "width": WIDTH},
            return_tensors="pt",
        )["pixel_values"]
        self.boxes = [torch.tensor([*s.boxes.values()]).float().view(-1, 4) for s in samples]
        self.kinds = [
            torch.tensor([KINDS.index(s.scene.shapes[n].kind) for n in s.boxes], dtype=torch.long)
            for s in samples
        ]
        self.text = processor.tokenizer(
            [text for _, text in rows],
            padding=True,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        offsets_RW2 = self.text.pop("offset_mapping")
        self.targets = [
            _targets(sample, text, offsets_W2)
            for (sample, text), offsets_W2 in zip(rows, offsets_RW2, strict=True)
        ]


def _targets(sample: Sample, text: str, offsets_W2: Tensor) -> tuple[Tensor, Tensor]:
    words = {}
    for phrase in phrases(text, sample):
        start, end = phrase.span
        inside = (offsets_W2[:, 0] >= start) & (offsets_W2[:, 1] <= end)
        named_W = (inside & (offsets_W2[:, 1] > offsets_W2[:, 0])).float()
        for n in phrase.targets:
            words[n] = torch.maximum(words[n], named_W) if n in words else named_W
    boxes = torch.tensor([sample.boxes[n] for n in words], dtype=torch.float32).view(-1, 4)
    named_KW = torch.stack(list(words.values())) if words else torch.zeros(0, len(offsets_W2))
    return boxes, named_KW


def match(logits_QW: Tensor, boxes_Q4: Tensor, target: tuple[Tensor, Tensor]) -> tuple:
    """The one-to-one assignment (queries, targets) of least cost."""
    truth_K4, named_KW = target
    probability = logits_QW.sigmoid()
    hit = 0.25 * (1 - probability) ** 2 * -torch.log(probability + 1e-8)
    miss = 0.75 * probability**2 * -torch.log(1 - probability + 1e-8)
    share_KW = named_KW / named_KW.sum(1, keepdim=True)
    cost = (
        2 * (hit - miss) @ share_KW.T
        + 5 * torch.cdist(boxes_Q4, truth_K4, p=1)
        - 2 * generalized_box_iou(boxes_Q4, truth_K4)
    )
    return linear_sum_assignment(cost)


def near_centre(centres_Q2: Tensor, truth_K4: Tensor) -> tuple[Tensor, Tensor]:
    """Positions in the middle of a target's box, each with the target of the nearest centre."""
    middle, size = (truth_K4[:, :2] + truth_K4[:, 2:]) / 2, truth_K4[:, 2:] - truth_K4[:, :2]
    off_QK = ((centres_Q2[:, None] - middle) / size).abs().amax(2)
    distance, owner = off_QK.min(1)
    queries = torch.nonzero(distance < 0.2)[:, 0]
    return queries, owner[queries]


def set_loss(logits: Tensor, boxes: Tensor, batch: Batch, assigned: list[tuple]) -> Tensor:
    """Focal loss of every word and box, L1 and GIoU of assigned boxes; (R, Q, W), (R, Q, 4)."""
    words = batch.text["attention_mask"].bool()[:, None].expand_as(logits)
    wanted = torch.zeros_like(logits)
    predicted, truth = [], []
    for row, ((queries, owners), target) in enumerate(zip(assigned, batch.targets, strict=True)):
        wanted[row, queries] = target[1][owners]
        predicted.append(boxes[row, queries])
        truth.append(target[0][owners])
    predicted, truth = torch.cat(predicted), torch.cat(truth)
    count = max(1, len(truth))
    focal = sigmoid_focal_loss(logits[words], wanted[words], alpha=0.25, gamma=2, reduction="sum")
    giou = generalized_box_iou_loss(predicted, truth, reduction="sum")
    return (2 * focal + 5 * (predicted - truth).abs().sum() + 2 * giou) / count


def kind_loss(model: GroundingDinoForObjectDetection, heads: nn.ModuleList, batch: Batch) -> Tensor:
    """Cross-entropy of the kinds of shapes, read off the backbone's features, over its levels."""
    total = torch.zeros(())
    for head, (features, _) in zip(heads, model.model.backbone.encoded[0], strict=True):
        logits, kinds = [], []
        centres = _centres(features)
        for image, boxes, kind in zip(features, batch.boxes, batch.kinds, strict=True):
            if len(boxes):
                here, owner = near_centre(centres, boxes)
                logits.append(head(image.flatten(1).T[here]))
                kinds.append(kind[owner])
        total = total + F.cross_entropy(torch.cat(logits), torch.cat(kinds))
    return total


def training_loss(model: GroundingDinoForObjectDetection, batch: Batch) -> Tensor:
    """The loss of the encoder's proposals and of every decoder layer; encodes the images."""
    model.model.backbone.encode(batch.images)
    rows = batch.images.repeat_interleave(CAPTIONS, dim=0)
    out = model(pixel_values=rows, **batch.text)
    width = batch.text["input_ids"].shape[1]
    logits = out.enc_outputs_class[..., :width]
    proposals = box_convert(out.enc_outputs_coord_logits.sigmoid(), "cxcywh", "xyxy")
    centres = torch.cat([_centres(level) for level, _ in model.model.backbone.encoded[0]])
    no_target = torch.zeros(0, dtype=torch.long)
    assigned = [
        near_centre(centres, boxes) if len(boxes) else (no_target, no_target)
        for boxes, _ in batch.targets
    ]
    loss = set_loss(logits, proposals, batch, assigned)
    for layer, hidden in enumerate(out.intermediate_hidden_states.unbind(1)):
        logits = model.class_embed[layer](
            hidden, out.encoder_last_hidden_state_text, batch.text["attention_mask"].bool()
        )[..., :width]
        before = (
            out.intermediate_reference_points[:, layer - 1] if layer else out.init_reference_points
        )
        moved = (model.bbox_embed[layer](hidden) + torch.logit(before, eps=1e-5)).sigmoid()
        boxes = box_convert(moved, "cxcywh", "xyxy")
        with torch.no_grad():
            assigned = [
                match(logits[r], boxes[r], target) for r, target in enumerate(batch.targets)
            ]
        loss = loss + set_loss(logits, boxes, batch, assigned)
    return loss


def _centres(features: Tensor) -> Tensor:
    """Centre (x, y) of every position of a level, 0..1 (H * W, 2)."""
    height, width = features.shape[-2:]
    y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).view(-1, 2)


def train(folder: Path, steps: int, seed: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    processor = GroundingDinoProcessor(GroundingDinoImageProcessor(), build_tokenizer())
    model = build_model(len(processor.tokenizer)).train()
    model.model.backbone = SharedBackbone(model.model.backbone)
    channels = model.model.backbone.backbone.conv_encoder.intermediate_channel_sizes
    heads = nn.ModuleList(nn.Linear(width, len(KINDS)) for width in channels)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=8e-4, weight_decay=0.01)
    state_file = folder.with_suffix(".training")
    first = 0
    if state_file.exists():
        state = torch.load(state_file)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    started, mean = time.time(), None
    for step in range(first, steps):
        rate = 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.005
        for group in optimizer.param_groups:
            group["lr"] = 8e-4 * min(1.0, (step + 1) / 200) * rate
        batch = Batch(np.random.default_rng([seed, step]), processor)
        loss = training_loss(model, batch)
        kinds = kind_loss(model, heads, batch)
        optimizer.zero_grad(set_to_none=True)
        (loss + 3 * kinds).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        now = np.array([loss.item(), kinds.item()])
        mean = now if mean is None else 0.98 * mean + 0.02 * now
        if (step + 1) % 50 == 0:
            pace = (time.time() - started) / (step + 1 - first)
            loss_now, kinds_now = mean
            print(
                f"{step + 1}/{steps} loss {loss_now:.3f} kinds {kinds_now:.3f} {pace:.2f} s/step",
                flush=True,
            )
        if (step + 1) % 250 == 0 or step + 1 == steps:
            state = {
                "model": model.state_dict(),
                "heads": heads.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step + 1,
            }
            torch.save(state, state_file.with_suffix(".tmp"))
            state_file.with_suffix(".tmp").replace(state_file)
            export(folder, model, processor)


def export(
    folder: Path, model: GroundingDinoForObjectDetection, processor: GroundingDinoProcessor
) -> None:
    """Write model (float16) and processor as `save_pretrained` does."""
    small = build_model(len(processor.tokenizer))
    shared, model.model.backbone = model.model.backbone, model.model.backbone.backbone
    small.load_state_dict(model.state_dict())
    model.model.backbone = shared
    small.half().save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEMO_DETECTOR)
    parser.add_argument("--steps", type=int, default=6500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train(options.out, options.steps, options.seed)
