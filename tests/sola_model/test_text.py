"""The text encoder, on a tiny RoBERTa made here."""

from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, RobertaConfig, RobertaModel, RobertaTokenizerFast

from sola_model.text import TextEncoder

MAX_TOKENS = 24


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("roberta")
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(["the dog runs left"], vocab_size=300, special_tokens=special)
    bpe.save(str(folder / "bpe.json"))
    RobertaTokenizerFast(tokenizer_file=str(folder / "bpe.json")).save_pretrained(folder)
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=300,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=MAX_TOKENS + 2,
        type_vocab_size=1,
    )
    RobertaModel(config).save_pretrained(folder)
    return folder


def test_features_are_the_models_last_hidden_state_without_padding(roberta):
    encoder = TextEncoder(str(roberta))
    texts = ["the dog", "the dog that runs left", "x"]
    features = encoder.encode(texts)
    tokenizer, model = AutoTokenizer.from_pretrained(roberta), RobertaModel.from_pretrained(roberta)
    assert encoder.dim == 16
    for text, text_WC in zip(texts, features, strict=True):
        tokens = tokenizer(text, return_tensors="pt")
        assert tokens["input_ids"][0, 0] == 0 and tokens["input_ids"][0, -1] == 2  # <s> ... </s>
        expected = model.eval()(**tokens).last_hidden_state[0]
        assert text_WC.dtype == torch.float32 and not text_WC.requires_grad
        torch.testing.assert_close(text_WC, expected.detach(), rtol=0, atol=1e-5)


def test_many_texts_keep_their_order(roberta):
    encoder = TextEncoder(str(roberta))
    texts = ["a " * (1 + i % 5) for i in range(70)]
    features = encoder.encode(texts)
    assert len(features) == 70
    torch.testing.assert_close(features[69], encoder.encode([texts[69]])[0])
    assert encoder.encode([]) == []


@pytest.mark.parametrize("text", ["", "  \n"])
def test_empty_text_is_refused(roberta, text):
    with pytest.raises(ValueError, match="Text 1 is empty"):
        TextEncoder(str(roberta)).encode(["a dog", text])


def test_longest_text_passes_and_a_longer_one_is_refused(roberta):
    encoder = TextEncoder(str(roberta))
    longest = "q" * (MAX_TOKENS - 2)  # with <s> and </s>
    assert encoder.encode([longest])[0].shape == (MAX_TOKENS, 16)
    with pytest.raises(ValueError, match=f"{MAX_TOKENS + 1} tokens.*at most {MAX_TOKENS}"):
        encoder.encode([longest + "q"])


def test_what_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be loaded(.|\n)*folder written by"):
        TextEncoder(str(tmp_path))
