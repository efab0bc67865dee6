"""UMT5's tokenizer: its file decides, and nothing that a library would make of it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.tokenizer import read_tokenizer

SENTINELS = [f"<extra_id_{number}>" for number in range(19, -1, -1)]
SPECIAL = ["<pad>", "</s>", "<s>", "<unk>"]
WORDS = ["▁a", "▁cat", "▁dog", "▁walks", "▁the", "▁red", "▁in", "▁grass", "▁静", "态"]
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789.,:;!?-'\"() 静态走猫"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tokenizer in UMT5's form: unknown characters are number 3, `<unk>`."""
    pieces = [(token, 0.0) for token in SPECIAL] + [("▁", -3.0)]
    pieces += [(letter, -8.0) for letter in ALPHABET if letter != " "] + [(word, -6.0) for word in WORDS if len(word) > 1]
    pieces += [(sentinel, 0.0) for sentinel in SENTINELS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL + SENTINELS])
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5Tokenizer",
        "extra_ids": 20,
        "additional_special_tokens": SENTINELS,
        "pad_token": {"__type": "AddedToken", "content": "<pad>"},
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 512,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def ids(tokenizer: Any, text: str) -> list[int]:
    return [int(number) for number in tokenizer(text).input_ids]


def strings(count: int) -> list[str]:
    """Return texts of known words, known and unknown characters, special tokens and odd spaces."""
    draw = random.Random(7)
    parts = [*WORDS, *SENTINELS[:3], *SPECIAL, *ALPHABET, " ", "  ", "\t", "\n", "🫠", "𠀋", "é", "ﬁ", "\u200b", "Ä", "▁", "̈"]
    fixed = ["", " ", "a cat walks", "a 🫠 cat", "a </s> b", "<extra_id_0> cat", "  two  spaces "]
    return fixed + ["".join(draw.choices(parts, k=draw.randint(1, 30))) for _ in range(count - len(fixed))]


def test_ten_thousand_texts_have_the_ids_of_the_file(folder: Path) -> None:
    ours, file = read_tokenizer(folder), Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = strings(10_000)
    assert [ids(ours, text) for text in texts] == [file.encode(text).ids for text in texts]
    assert 3 in ids(ours, "🫠")
    assert 2 not in ids(ours, "🫠")
    assert len(ours) == file.get_vocab_size()


def test_a_prompt_is_padded_with_the_pad_token_and_masked(folder: Path) -> None:
    padded = read_tokenizer(folder)("a cat", padding="max_length", max_length=8, truncation=True, return_tensors="pt")
    assert padded.input_ids.tolist()[0][3:] == [0] * 5
    assert padded.attention_mask.tolist() == [[1, 1, 1, 0, 0, 0, 0, 0]]


def test_a_file_that_was_saved_while_it_cut_does_not_cut(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert len(ids(read_tokenizer(tmp_path), "a cat walks in the grass")) == 7


def test_a_folder_without_the_file_says_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "spiece.model").write_bytes(b"\n\x0b")
    with pytest.raises(CheckpointRefused, match=r"has only spiece\.model, no tokenizer\.json; copy .*`google/umt5-xxl`"):
        read_tokenizer(tmp_path)
    with pytest.raises(CheckpointRefused, match=r"has no tokenizer\.json; copy"):
        read_tokenizer(tmp_path / "none")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointRefused, match="not a tokenizer that the library"):
        read_tokenizer(tmp_path)
