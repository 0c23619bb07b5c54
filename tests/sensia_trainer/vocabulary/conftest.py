"""Two tokenizers of the kinds that can be continued, and a bitext of made-up Indonesian."""

import json
import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast


TRANSLATIONS = {
    "the": "itu",
    "house": "rumah",
    "dog": "anjing",
    "sees": "melihat",
    "river": "sungai",
    "and": "dan",
    "Danube": "Donau",
    "small": "kecil",
    "walks": "berjalan",
    "to": "ke",
    "market": "pasar",
    "café": "kedai",
}
CHINESE = {"我们": "we", "使用": "use", "文件": "files", "数据": "data", "。": "."}


def sentences(words, number, seed):
    draw = random.Random(seed)
    return [draw.choices(words, k=draw.randint(3, 8)) for _ in range(number)]


@pytest.fixture(scope="session")
def bitext():
    """English and Indonesian sentences, translated word by word."""
    english = sentences(list(TRANSLATIONS), 300, seed=0)
    return [" ".join(s) for s in english], [" ".join(TRANSLATIONS[word] for word in s) for s in english]


@pytest.fixture(scope="session")
def chinese_bitext():
    chinese = sentences(list(CHINESE), 300, seed=1)
    return [" ".join(CHINESE[word] for word in s) for s in chinese], ["".join(s) for s in chinese]


@pytest.fixture(scope="session")
def byte_level(bitext):
    """Llama 3's kind: special tokens behind the model's vocabulary."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False, special_tokens=[])
    backend.train_from_iterator(bitext[0], trainer)
    backend.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", model_max_length=64, padding_side="left"
    )


@pytest.fixture(scope="session")
def metaspace(bitext):
    """Llama 2's kind: a text is one word, and characters it does not know are spelled by bytes."""
    specials = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)]]
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()  # merges are learned from words
    trainer = trainers.BpeTrainer(vocab_size=320, show_progress=False, special_tokens=specials)
    backend.train_from_iterator(bitext[0], trainer)
    state = json.loads(backend.to_str()) | {"pre_tokenizer": None}
    state["added_tokens"] = state["added_tokens"][:3]
    backend = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", model_max_length=64
    )
