"""Train the embedded small RoBERTa by masked language modelling on the embedded data's language.

    python scripts/train_demo_roberta.py --out sola_model/demo/roberta     # a few minutes

The result is an ordinary `transformers` folder (RobertaModel and byte-level BPE tokenizer),
loaded as `roberta-base` would be.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    DataCollatorForLanguageModeling,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    RobertaTokenizerFast,
)

from warehouse.demo_data import describe, random_scene

SPECIAL_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
LONGEST = 64  # tokens


def sentences(scenes: int, seed: int) -> list[str]:
    """Every expression of some random scenes."""
    rng = np.random.default_rng(seed)
    return [d.text for _ in range(scenes) for d in describe(random_scene(rng), rng)]


def train_tokenizer(texts: list[str], folder: Path) -> RobertaTokenizerFast:
    """A byte-level BPE of the language's own words; any other text falls back to bytes."""
    bpe = ByteLevelBPETokenizer(add_prefix_space=True)
    bpe.train_from_iterator(texts, vocab_size=500, special_tokens=SPECIAL_TOKENS)
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save_model(str(folder))
    tokenizer = RobertaTokenizerFast.from_pretrained(
        str(folder), add_prefix_space=True, model_max_length=LONGEST
    )
    for file in ("vocab.json", "merges.txt"):
        (folder / file).unlink()
    tokenizer.save_pretrained(folder)
    return tokenizer


def main(folder: Path, steps: int) -> None:
    torch.manual_seed(0)
    texts = sentences(6000, seed=0)
    tokenizer = train_tokenizer(texts, folder)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=LONGEST + 2,
        type_vocab_size=1,
    )
    model = RobertaForMaskedLM(config)
    encoded = [tokenizer(text)["input_ids"] for text in texts]
    collate = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    rng = np.random.default_rng(1)

    def batch(pool: list, size: int):
        rows = [pool[i] for i in rng.integers(len(pool), size=size)]
        padded = tokenizer.pad([{"input_ids": row} for row in rows])
        return collate([{k: v[i] for k, v in padded.items()} for i in range(size)])

    for step in range(steps):
        loss = model(**batch(encoded, 64)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            print(f"{step + 1}/{steps} loss {loss.item():.3f}", flush=True)
    held_out = [tokenizer(text)["input_ids"] for text in sentences(200, seed=1)]
    model.eval()
    with torch.no_grad():
        inputs = batch(held_out, 1000)
        masked = inputs["labels"] != -100
        right = model(**inputs).logits.argmax(-1)[masked] == inputs["labels"][masked]
    print(f"held-out masked tokens predicted: {100 * right.float().mean():.1f} %")
    encoder = RobertaModel(config)
    encoder.load_state_dict(model.roberta.state_dict(), strict=False)  # the pooler is not used
    encoder.save_pretrained(folder)


if __name__ == "__main__":
    default = Path(__file__).parent.parent / "sola_model" / "demo" / "roberta"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=default)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    main(options.out, options.steps)
