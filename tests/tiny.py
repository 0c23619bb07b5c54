"""A training small enough for a test: a Backpack of some thousand weights on made-up sentence pairs."""

import random

import torch
from datasets import Dataset
from transformers import GPT2Config, GPT2Tokenizer

from modeling_backpack import BackpackConfig, BackpackForCausalLM
from sensia_trainer.config import SensiaConfig
from sensia_trainer.trainer import SensiaTrainer


WORDS = {
    "sun": "matahari",
    "sea": "laut",
    "book": "buku",
    "cat": "kucing",
    "red": "merah",
    "eats": "makan",
    "old": "tua",
}


def tiny_bitext(rows=48, seed=0):
    """Pairs of 2 to 6 words, translated word by word."""
    draw = random.Random(seed)
    english = [draw.choices(list(WORDS), k=draw.randint(2, 6)) for _ in range(rows)]
    pairs = [{"en": " ".join(words), "id": " ".join(WORDS[word] for word in words)} for words in english]
    return Dataset.from_dict({"translation": pairs})


def tiny_languages(en_id=24, en_sw=48, id_sw=0, seed=0):
    """Pairs of three languages by name; Swahili is Indonesian spelled backwards."""
    found = {}
    for name, rows in {"en-id": en_id, "en-sw": en_sw, "id-sw": id_sw}.items():
        pairs = tiny_bitext(rows, seed)["translation"] if rows else []
        rows = [pair | {"sw": pair["id"][::-1]} for pair in pairs]
        if rows:
            found[name] = Dataset.from_dict(
                {"translation": [{key: row[key] for key in name.split("-")} for row in rows]}
            )
    return found


def tiny_texts(language, rows=20):
    """Texts of one language, 2 to 12 words each."""
    draw = random.Random(2)
    words = [draw.choices(list(WORDS.items()), k=draw.randint(2, 12)) for _ in range(rows)]
    return Dataset.from_dict({"text": [" ".join(pair[language == "id"] for pair in text) for text in words]})


def tiny_tokenizer():
    tokenizer = GPT2Tokenizer().train_new_from_iterator([" ".join(WORDS), " ".join(WORDS.values())], vocab_size=280)
    tokenizer.add_special_tokens(dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>"))
    return tokenizer


def tiny_model(tokenizer, dropout=0.1):
    """Freshly initialised by a fixed seed: K = 4 senses of width 16 on one layer, 40 positions."""
    torch.manual_seed(0)
    rates = dict.fromkeys(("resid_pdrop", "embd_pdrop"), dropout)
    backbone = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=40,
        attn_pdrop=dropout,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **rates,
    )
    return BackpackForCausalLM(BackpackConfig(backbone_config=backbone, num_senses=4, **rates))


def without_intervals(metrics):
    """The numbers alone: what `pytest.approx` compares."""
    return {name: value for name, value in metrics.items() if not isinstance(value, list)}


class KeepsRows(SensiaTrainer):
    """Remembers the rows of the training set that this process has seen, batch by batch, as `seen`."""

    seen = ()

    def training_step(self, model, inputs, num_items_in_batch=None):
        self.seen = [*self.seen, inputs["rows"].tolist()]
        return super().training_step(model, inputs, num_items_in_batch)


def _evaluated(bitext, rows):
    if bitext is None:
        return tiny_bitext(rows, seed=1)
    return {name: part for name, part in tiny_languages(rows, rows, rows, seed=1).items() if name in bitext}


def tiny_trainer(
    folder,
    *,
    trainer_class=SensiaTrainer,
    callbacks=None,
    texts=None,
    eval_rows=0,
    rows=48,
    dropout=0.1,
    bitext=None,
    **fields,
):
    """A [`SensiaTrainer`] of 12 steps: align to step 2, joint to step 6, then polish. `fields` go to its config;
    `bitext` takes the place of `rows` made-up pairs, and of `eval_rows` by the names of its languages."""
    tokenizer = tiny_tokenizer()
    settings = dict(
        output_dir=str(folder),
        max_steps=12,
        per_device_train_batch_size=8,
        learning_rate=0.01,
        warmup_steps=0,
        logging_steps=1,
        eval_strategy="steps" if eval_rows else "no",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    return trainer_class(
        tiny_model(tokenizer, dropout),
        SensiaConfig(**settings | fields),
        train_dataset=bitext or tiny_bitext(rows),
        eval_dataset=_evaluated(bitext, eval_rows) if eval_rows else None,
        processing_class=tokenizer,
        callbacks=callbacks,
        texts=texts,
    )
