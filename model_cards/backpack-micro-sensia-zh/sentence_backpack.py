# Copyright 2026 The SENSIA authors. All rights reserved.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""
Sentence vectors of a Backpack for sentence-transformers, which finds this module by `modules.json`:

    model = SentenceTransformer("owner/name", trust_remote_code=True)
    model.encode(sentences)                     # sense vectors
    model.encode(sentences, vectors="context")  # context vectors

The sense vector of a sentence is the mean over its tokens of their senses, each weighed by its share pi of the softmax
over the K norms; the context vector is the state of its last token ("Multilinguality as Sense Adaptation", Section
2.1). Both have unit length.
"""

import json
import os

import torch
from torch import nn
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file


SETTINGS_FILE = "sentence_backpack.json"
VECTORS = ("sense", "context")


class BackpackSentenceVectors(nn.Module):
    """
    A module of `SentenceTransformer`: from texts to vectors.

    Args:
        model ([`BackpackModel`]): The model, without its head.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        pooling (`str`, *optional*, defaults to `"magnitude"`):
            `"magnitude"`: senses before context; `"contextual"`: their contributions, after context; `"mixture"`: the
            mixture of senses, as the model weighs them.
        temperature (`float`, *optional*, defaults to 0.7): Of the softmax over the norms of the senses.
        context_state (`str`, *optional*, defaults to `"mixture"`): State of the context vectors: the mixture, the
            `"backbone"`'s final one, or `"combined"`, what the head reads.
        context_layer (`int`, *optional*): The backbone's state after this many blocks instead.
    """

    save_in_root = True
    forward_kwargs = {"vectors"}

    def __init__(
        self, model, tokenizer, pooling="magnitude", temperature=0.7, context_state="mixture", context_layer=None
    ):
        super().__init__()
        self.auto_model = model
        self.tokenizer = tokenizer
        self.settings = {"pooling": pooling, "temperature": temperature}
        self.settings |= {"context_state": context_state, "context_layer": context_layer}
        self.max_seq_length = getattr(model.config.get_text_config(decoder=True), "max_position_embeddings", None)

    @property
    def modalities(self):
        return ["text"]

    def get_embedding_dimension(self):
        return self.auto_model.config.hidden_size

    get_sentence_embedding_dimension = get_embedding_dimension

    def preprocess(self, texts, prompt=None, **kwargs):
        """Token ids, padded on the right, of texts as the model was trained on them; an empty one is its end token."""
        texts = [(prompt or "") + text for text in texts]
        start = self._start()
        room = None if self.max_seq_length is None else self.max_seq_length - len(start)
        options = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
        encoded = self.tokenizer(texts, **options)["input_ids"]
        encoded = [start + ids[:room] or [self.tokenizer.eos_token_id or 0] for ids in encoded]
        length = max(map(len, encoded))
        return {
            "input_ids": torch.tensor([ids + [0] * (length - len(ids)) for ids in encoded]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (length - len(ids)) for ids in encoded]),
        }

    tokenize = preprocess

    def forward(self, features, vectors="sense", **kwargs):
        if vectors not in VECTORS:
            raise ValueError(f"`vectors` is {vectors!r}, but must be one of {', '.join(map(repr, VECTORS))}.")
        mask, layer = features["attention_mask"], self.settings["context_layer"]
        pooling = self.settings["pooling"] if vectors == "sense" else None
        output = self.auto_model(
            input_ids=features["input_ids"],
            attention_mask=mask,
            use_cache=False,
            output_senses=pooling in ("magnitude", "contextual"),
            output_sense_weights=pooling == "contextual",
            output_hidden_states=vectors == "context" and layer is not None,
        )
        last = torch.arange(len(mask), device=mask.device), mask.sum(dim=1) - 1
        sentences = self._sense_vectors(output, mask) if vectors == "sense" else self._states(output)[last].float()
        return features | {"sentence_embedding": nn.functional.normalize(sentences, dim=-1)}

    def _sense_vectors(self, output, mask):
        """Means over tokens of sum_k pi_tk S_tk, of the same over contributions, or of the mixture."""
        mean = mask / mask.sum(dim=1, keepdim=True)
        if self.settings["pooling"] == "mixture":
            return torch.einsum("bt,btd->bd", mean, output.mixture.float())
        senses = output.senses.float()
        if self.settings["pooling"] == "contextual":
            senses = torch.einsum("bkts,bskd->btkd", output.sense_weights.float(), senses)
        probs = (senses.norm(dim=-1) / self.settings["temperature"]).softmax(dim=-1)
        return torch.einsum("bt,btk,btkd->bd", mean, probs, senses)

    def _states(self, output):
        if self.settings["context_layer"] is not None:
            return output.hidden_states[self.settings["context_layer"]]
        names = {"mixture": "mixture", "backbone": "backbone_last_hidden_state", "combined": "last_hidden_state"}
        return getattr(output, names[self.settings["context_state"]])

    def _start(self):
        """What the tokenizer itself puts before a text, as training saw it."""
        bare = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full = self.tokenizer("a")["input_ids"]
        return full[: next((n for n in range(len(full)) if full[n : n + len(bare)] == bare), 0)]

    @classmethod
    def load(
        cls,
        model_name_or_path,
        subfolder="",
        token=None,
        cache_folder=None,
        revision=None,
        local_files_only=False,
        trust_remote_code=False,
        model_kwargs=None,
        processor_kwargs=None,
        **kwargs,
    ):
        """The model in float32, which a CPU computes fastest, unless `model_kwargs` give a `dtype`."""
        place = {"token": token, "cache_dir": cache_folder, "revision": revision, "local_files_only": local_files_only}
        trusted = place | {"trust_remote_code": trust_remote_code}
        file = cached_file(model_name_or_path, SETTINGS_FILE, _raise_exceptions_for_missing_entries=False, **place)
        settings = {}
        if file is not None:
            with open(file, encoding="utf-8") as content:
                settings = json.load(content)
        loading = {"dtype": torch.float32} | trusted | (model_kwargs or {})
        if "torch_dtype" in loading:  # as it was called before
            loading["dtype"] = loading.pop("torch_dtype")
        model = AutoModel.from_pretrained(model_name_or_path, **loading)
        tokenizer = AutoTokenizer.from_pretrained(model_name_or_path, **(trusted | (processor_kwargs or {})))
        return cls(model, tokenizer, **settings)

    def save(self, output_path, *args, safe_serialization=True, **kwargs):
        self.auto_model.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)
        with open(os.path.join(output_path, SETTINGS_FILE), "w", encoding="utf-8") as file:
            json.dump(self.settings, file, indent=2)
