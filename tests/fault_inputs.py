"""Bad inputs for every command: what is wrong, and what a clear answer has to name. `tests/faults.py` tries them.

A clear answer is a refusal in one line that names the thing, or a run that ends well and says by a warning, or in its
counts, what was wrong.
"""

import bz2
import gzip
import json
import lzma
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from tests.tiny import tiny_bitext, tiny_model, tiny_tokenizer


@dataclass
class Fault:
    """`sensia COMMAND`: exit by an error that matches `names`, or, where `tells` is given, well and saying that."""

    command: str
    names: str
    tells: str | None = None

    @property
    def name(self):
        return self.command


ADAPT = {"model": "base", "bitext": "pairs.tsv", "target_language": "id", "held_out_pairs": 4}
TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "save_steps": 1, "logging_steps": 1, "use_cpu": True}
TRAINING |= {"report_to": "none", "disable_tqdm": True, "output_dir": "out"}
PRETRAIN = {"text_files": ["text.txt"], "vocab_size": 280, "block_size": 16, "held_out_blocks": 4}
PRETRAIN |= {"backbone_config": {"n_embd": 16, "n_layer": 1, "n_head": 2}, "backpack_config": {"num_senses": 4}}
INDUCE = {name: PRETRAIN[name] for name in ("text_files", "block_size", "held_out_blocks")}
INDUCE |= {"model": "dense", "backpack_config": {"num_senses": 4}}
EVALUATE = {"model": "base", "output": "e.json", "target": "id", "source": "en", "flores": False, "tasks": []}
EVALUATE |= {"bitext": ["pairs.tsv"], "generate": False, "progress": False, "bootstrap": 10, "check_languages": False}
ANALYZE = {"model": "base", "output": "a.json", "source_file": "a.en", "target_file": "a.id", "target_language": "id"}
MATRIX = {
    "title": "T",
    "recipe": "adapt.yaml",
    "axes": {"variant": {"full": {}}},
    "columns": [{"label": "P", "metric": "a"}],
}
BITEXT = {"source": "en", "target": "id", "sources": [{"path": "pairs.tsv", "licence": "CC0", "name": "mine"}]}

# What a field is given, for `sensia COMMAND recipe --FIELD VALUE`; the answer has to name the field.
VALUES = {
    "adapt": """learning_rate=nan learning_rate=-1 learning_rate=fast learning_rate=inf max_steps=0 max_steps=-5
        max_steps=1.5 max_steps=many per_device_train_batch_size=0 per_device_train_batch_size=-2
        per_device_train_batch_size=1 per_device_train_batch_size=1000 tau_sense=0 tau_sense=-1 tau_sense=nan
        tau_context=0 tau_context_end=-2 sense_pool_temperature=0 sense_pool_temperature=-1 label_smoothing=1
        label_smoothing=-0.1 label_smoothing=nan align_fraction=-1 align_fraction=2 joint_fraction=nan
        polish_freeze=nothing phases=sing w_sense=-1 w_sense=nan w_lm=-0.5 context_layer=-1 context_layer=99
        context_state=foo sense_pooling=foo max_length=0 max_length=-3 held_out_pairs=-1 held_out_pairs=0
        held_out_pairs=5000 max_pairs=-1 max_pairs=0 contrastive_chunk_size=-1 non_finite_loss=ignore method=magic
        source_language=not-a-language target_language=en target_language=zz9 bitext_keep={ bitext_keep=[1]
        bitext_keep={"nosuch":"x"} bitext_cap={"nosuch":3} model=nowhere model=empty-folder model=headless
        model=cut-weights model=no-tokenizer model=bert model=dense model=other-vocabulary tokenizer=nowhere
        control=nowhere.json control=broken.json control=pairs.tsv output_dir=pairs.tsv output_dir=base
        weight_decay=-1 adam_beta1=2 adam_epsilon=0 warmup_steps=-1 gradient_accumulation_steps=0 save_steps=0
        save_total_limit=0 seed=-1 logging_steps=0 lr_scheduler_type=wavy optim=nosuch bf16=perhaps
        eval_bitext=nowhere.tsv eval_flores=nowhere max_grad_norm=-1 vocabulary_size=-1 vocabulary_size=many
        vocabulary_transfer=magic vocabulary_source_change=2 vocabulary_leave_out=1 hard_negative_weight=-1
        noisy_pair_exponent=1 source_lm_weight=-1 replay_ratio=3 replay_source=nowhere.txt train=some
        lora_senses=none induce_steps=-1 model=encoder-decoder""",
    "pretrain": """learning_rate=nan learning_rate=-1 max_steps=0 max_steps=-5 per_device_train_batch_size=0
        block_size=0 block_size=-4 block_size=9000 held_out_blocks=0 held_out_blocks=-1 held_out_blocks=9999
        vocab_size=0 vocab_size=100 num_proc=0 tokenizer=nowhere tokenizer=empty-folder model=nowhere
        text_files=nowhere.txt text_files=empty.txt text_files=image.png text_files=base text_files=utf16.txt
        text_files=cut.txt.gz tsv_keep=[ backbone_config={ backbone_config={"n_embd":15}
        backpack_config={"nosuch":3} dataset=nowhere/nothing seed=-3 weight_decay=nan""",
    "induce": """learning_rate=nan max_steps=0 per_device_train_batch_size=0 block_size=0 block_size=9000
        held_out_blocks=0 held_out_blocks=9999 distill_share=2 distill_share=nan distill_temperature=0
        distill_temperature=-1 diversity_weight=-1 mixture_weight=-1 gate_learning_rate=0 gate_learning_rate=nan
        model=nowhere model=empty-folder model=base model=bert model=encoder-decoder model=cut-weights
        model=no-tokenizer model=other-vocabulary backpack_config={ backpack_config={"nosuch":3}
        text_files=nowhere.txt text_files=empty.txt text_files=image.png
        train_head=true train_backbone=true seed=-3""",
    "evaluate": """model=nowhere model=empty-folder model=headless model=no-tokenizer output=x.txt output=base
        target=zz9 source=zz9 target=en tasks=nosuch templates=nosuch bitext=nowhere.tsv bitext=empty.tsv
        bitext=onelanguage.tsv max_items=-1 max_items=0 batch_size=0 max_length=-1 max_length=0 context_state=foo
        context_layer=-2 pooling=foo temperature=0 temperature=-1 dtype=float99 device=toaster bootstrap=-1
        data_dir=nowhere tokenizer=nowhere questions=foo flores_purpose=fun choices=nowhere.jsonl seed=-1""",
    "analyze": """model=nowhere model=dense output=x.txt source_file=nowhere target_file=short.id
        target_language=zz9 source_file=empty.txt temperature=0 minimum_count=-1 encoder=nowhere top_k=0 batch_size=0
        control=nowhere iterations=-1 device=toaster""",
}  # fmt: skip

# Bitext that is not what it says, `sensia adapt recipe --bitext NAME`: what the answer names, or tells of in the end.
FILES = {
    "empty.tsv": ("empty.tsv|pairs|columns", None),
    "header.tsv": ("header.tsv|pairs|text", None),
    "onelanguage.tsv": ("onelanguage.tsv", None),
    "headless.tsv": ("headless.tsv", None),
    "blank.tsv": ("text on both sides|blank.tsv", None),
    "garbage.tsv": ("garbage.tsv", None),
    "utf16.tsv": ("utf16.tsv", None),
    "latin1.tsv": ("latin1.tsv", "UTF-8|utf8"),
    "cut.tsv.gz": ("cut.tsv.gz", None),
    "bomb.tsv.gz": ("bomb.tsv.gz", None),
    "two.zip": ("two.zip", None),
    "bad.jsonl": ("bad.jsonl", None),
    "some.jsonl": ("some.jsonl", "malformed lines: 3 left out"),
    "some.tsv": ("some.tsv", "malformed lines: 2 left out"),
    "nul.tsv": ("nul.tsv", "malformed lines"),
    "broken.tmx": ("broken.tmx", None),
    "plain.docx": ("plain.docx", None),
    "nowhere.tsv": ("nowhere.tsv", None),
    "base": ("base", None),
    "empty-folder": ("empty-folder", None),
    "few.tsv": ("held_out_pairs|few.tsv", None),
    "same.tsv": ("held_out_pairs|same.tsv|identical|language", "same|identical|language"),
    "swapped.tsv": ("swapped", None),
    "a.en a.short": ("a.en|a.short", None),
    "pairs.tsv other.tsv": ("", "pairs read"),
    "packed": ("", "pairs read"),
    "named.tsv.gz": ("", "pairs read"),
    "pairs.tsv.xz": ("", "pairs read"),
    "pairs.tsv.bz2": ("", "pairs read"),
}

WORDS = "vocabulary base --bitext pairs.tsv --target_language id --size 8 --output_dir words"
NO_WORDS = {
    "--bitext nowhere.tsv": "nowhere.tsv",
    "--bitext empty.tsv": "empty.tsv|pairs|columns",
    "--target_language zz9": "zz9",
    "--target_language en": "language|en",
    "--size 0": "size",
    "--size -3": "size",
    "--output_dir base": "base.*exists",
    "--transfer magic": "transfer",
    "--dictionary nowhere.tsv": "nowhere.tsv",
    "--source_change 3": "source_change",
}

ODD = [
    Fault("adapt nowhere.yaml", "nowhere.yaml"),
    Fault("adapt quikstart", "quickstart"),
    Fault("adapt list.yaml", "list.yaml.*mapping"),
    Fault("adapt broken.yaml", "broken.yaml"),
    Fault("adapt binary.yaml", "binary.yaml"),
    Fault("adapt unknown.yaml", "learning_rat.*learning_rate"),
    Fault("adapt wrongtype.yaml", "max_steps"),
    Fault("adapt nothing.yaml", "model|bitext"),
    Fault("adapt unset.yaml", "NOT_SET"),
    Fault("adapt adapt.yaml --learning_rat 1", "learning_rate"),
    Fault("adapt adapt.yaml --max-step 1", "max_steps"),
    Fault("adapt adapt.yaml extra", "extra"),
    Fault("adapt adapt.yaml --max_steps", "max_steps"),
    Fault("adapt adapt.yaml --bitext ${NOT_SET}/x.tsv", "NOT_SET"),
    Fault("adapt adapt.yaml --control ${NOT_SET}/x.json", "NOT_SET"),
    Fault("adapt adapt.yaml --method mcl", "dense_model"),
    Fault("adapt adapt.yaml --method mcl --dense_model nowhere", "nowhere"),
    Fault("adapt adapt.yaml --phases polish align", "phases"),
    Fault("adapt adapt.yaml --align_weights 0.1 0.2", "align_weights"),
    Fault("adapt adapt.yaml --align_weights 0 0 0", "align_weights"),
    Fault("adapt adapt.yaml --model dense", "sensia induce.*induce_steps|without"),
    Fault("adapt adapt.yaml --vocabulary_size 8 --vocabulary_dictionary nowhere.tsv", "nowhere.tsv"),
    Fault("adapt adapt.yaml --vocabulary_size 8 --vocabulary_dictionary text.txt", "text.txt"),
    Fault("adapt adapt.yaml --vocabulary_size 100000", "", "words"),
    Fault("adapt adapt.yaml --train senses", "polish_freeze"),
    Fault("adapt adapt.yaml --train senses --polish_freeze none --source_lm_weight 1", "", "vocabulary.*frozen"),
    Fault("adapt adapt.yaml --replay_source text.txt --source_lm_weight 0", "nothing would be learned from it"),
    Fault("adapt adapt.yaml --monolingual_target nowhere.txt", "nowhere.txt.*data set of the Hub"),
    Fault("adapt adapt.yaml --bitext '{\"id\": \"pairs.tsv\", \"id\": \"pairs.tsv\"}'", "names 'id' twice"),
    Fault("adapt adapt.yaml --train lora --lora_r 0", "lora_r"),
    Fault("adapt adapt.yaml --train lora --lora_r -2", "lora_r"),
    Fault("adapt adapt.yaml --eval_bitext pairs.tsv", "eval_bitext|shares a sentence"),
    Fault("adapt adapt.yaml --eval_bitext pairs.tsv --eval_flores x", "eval_bitext.*eval_flores"),
    Fault("adapt adapt.yaml --num_train_epochs 2", "num_train_epochs"),
    Fault("adapt adapt.yaml --max_steps -1 --num_train_epochs 0", "num_train_epochs"),
    Fault("adapt adapt.yaml --label_smoothing_factor 0.1", "label_smoothing"),
    Fault("adapt adapt.yaml --output_dir finished --seed 77", "already holds another run.*seed"),
    Fault("adapt adapt.yaml --output_dir stolen", "settings.json"),
    Fault("adapt adapt.yaml --output_dir /proc/no/run", "/proc/no/run"),
    Fault("adapt adapt.yaml --deepspeed nowhere.json", "nowhere.json|deepspeed"),
    Fault("adapt adapt.yaml --push_to_hub true", "push_to_hub|token|Hub|hub|offline"),
    Fault("pretrain pretrain.yaml --dataset a/b", "dataset.*text_files"),
    Fault("pretrain pretrain.yaml --model base", "backbone_config"),
    Fault("pretrain pretrain.yaml --text_files bad.tsv --tsv_column sw", "tsv_column"),
    Fault("pretrain pretrain.yaml --text_files pairs.tsv --tsv_keep '{\"kind\": \"x\"}'", "tsv_keep"),
    Fault("pretrain pretrain.yaml --text_files ${NOT_SET}/x.txt", "NOT_SET"),
    Fault("pretrain nofields.yaml", "text_files"),
    Fault("pretrain pretrain.yaml --text_files many.txt bad.jsonl", "bad.jsonl", "malformed"),
    Fault("pretrain pretrain.yaml --learning_rate 1e30 --max_steps 6", "[Nn]on-finite|NaN|loss"),
    Fault("evaluate evaluate.yaml --data_dir ${NOT_SET}", "NOT_SET"),
    Fault("evaluate evaluate.yaml --tasks copa", "super_glue|copa"),
    Fault("pretrain pretrain.yaml --text_files some.jsonl --text_column nosuch", "some.jsonl"),
    Fault("evaluate evaluate.yaml --choices choices.jsonl --choices_label nosuch", "nosuch"),
    Fault("evaluate evaluate.yaml --choices choices.jsonl --choices_context {nosuch}", "nosuch"),
    Fault("evaluate evaluate.yaml --choices broken.json", "broken.json"),
    Fault("evaluate compare nowhere.json --output t.md", "nowhere.json"),
    Fault("evaluate compare broken.json --output t.md", "broken.json"),
    Fault("evaluate compare half.json --output t.md", "half.json"),
    Fault("evaluate compare finished/metrics.json --output t.md", "metrics.json"),
    Fault("analyze render nowhere", "nowhere"),
    Fault("analyze render empty-folder", "empty-folder"),
    Fault("analyze render results-broken", "broken.json"),
    Fault("reproduce nowhere --results_dir r", "nowhere"),
    Fault("reproduce m-unknown.yaml --results_dir r", "nosuch"),
    Fault("reproduce m-climb.yaml --results_dir r", "climb"),
    Fault("reproduce m-script.yaml --results_dir r", "evil.py"),
    Fault("reproduce m-field.yaml --results_dir r", "max_step"),
    Fault("reproduce m-type.yaml --results_dir r", "max_steps"),
    Fault("reproduce m-columns.yaml --results_dir r", "columns"),
    Fault("reproduce m-axes.yaml --results_dir r", "axes"),
    Fault("reproduce m-recipe.yaml --results_dir r", "nowhere.yaml"),
    Fault("reproduce matrix.yaml --results_dir r --only nosuch", "nosuch"),
    Fault("reproduce matrix.yaml --results_dir pairs.tsv --list", "", "to run"),
    Fault("reproduce matrix.yaml --results_dir pairs.tsv --render_only", "pairs.tsv"),
    Fault("reproduce matrix.yaml --results_dir r --again nowhere --render_only", "nowhere"),
    Fault("reproduce matrix.yaml --results_dir r --preface nowhere.md --render_only", "nowhere.md"),
    Fault("reproduce matrix.yaml --results_dir r --report base --render_only", "base"),
    Fault("reproduce matrix.yaml --results_dir r-broken --render_only", "full.json"),
    Fault("release nowhere r1", "nowhere"),
    Fault("release empty-folder r2", "empty-folder"),
    Fault("release finished r3 --dtype float99", "dtype"),
    Fault("release finished r4 --after nowhere.json", "nowhere.json"),
    Fault("release finished r5 --after half.json", "half.json"),
    Fault("release finished r6 --control broken.json", "broken.json|after|control"),
    Fault("release finished finished", "finished"),
    Fault("release finished pairs.tsv", "pairs.tsv"),
    Fault("release unfinished r7", "unfinished"),
    Fault("release infinite r8 --dtype float16", "float16.*infinity"),
    Fault("publish nowhere a/b --dry-run", "nowhere"),
    Fault("publish empty-folder a/b --dry-run", "empty-folder|README|card"),
    Fault("publish finished not-an-id --dry-run", "not-an-id"),
    Fault("publish finished a/b --tag 'x y' --dry-run", "tag|base_model|licen"),
    Fault("publish base a/b --dry-run", "README|card"),
    Fault("publish pickled a/b --dry-run", "pickle|training_args|README|card|\\.bin"),
    Fault("publish finished a/b --repo-type dataset --dry-run", "dataset|metadata|card"),
    Fault("publish finished a/b --repo-type toy --dry-run", "repo.type"),
    Fault("bitext nowhere", "nowhere"),
    Fault("bitext list.yaml", "list.yaml|mapping"),
    Fault("bitext b-unknown.yaml --output_dir b1", "nosuch"),
    Fault("bitext b-both.yaml --output_dir b2", "opus.*path"),
    Fault("bitext b-file.yaml --output_dir b3", "nowhere.tsv"),
    Fault("bitext b-language.yaml --output_dir b4", "zz9"),
    Fault("bitext b-same.yaml --output_dir b5", "source|target|same"),
    Fault("bitext b-bounds.yaml --output_dir b6", "length"),
    Fault("bitext b-none.yaml --output_dir b7", "sources"),
    Fault("bitext bitext.yaml --output_dir pairs.tsv", "pairs.tsv"),
    Fault("bitext bitext.yaml --output_dir b8 --num_proc 0", "num_proc"),
    Fault("bitext bitext.yaml --output_dir b9 --num_proc -2", "num_proc"),
    Fault("bitext bitext.yaml --output_dir b10 --sample 0", "sample"),
    Fault("bitext bitext.yaml --output_dir b11 --sample -5", "sample"),
    Fault("bitext bitext.yaml --output_dir b12 --sample some", "sample"),
    Fault("convert nowhere c1", "nowhere"),
    Fault("convert empty-folder c2", "empty-folder|config"),
    Fault("convert headless c3", "headless|weights|model.safetensors"),
    Fault("convert dense c7", "dense.*GPT2LMHeadModel.*sensia induce"),
    Fault("convert base c4 --text text.txt", "tokenizer"),
    Fault("convert base c5 --tokenizer nowhere", "nowhere"),
    Fault("convert base c6 --tokenizer base --text nowhere.txt", "nowhere.txt"),
    *(Fault(f"{WORDS} {change}", names) for change, names in NO_WORDS.items()),
    Fault(WORDS.replace("base", "nowhere"), "nowhere"),
    Fault(WORDS.replace("base", "bert"), "bert"),
    Fault(WORDS.replace("base", "other-vocabulary"), "other-vocabulary.*embeddings"),
    Fault("induce nowhere --text_files text.txt --output_dir i1", "nowhere"),
    Fault("induce induce.yaml --output_dir stolen", "settings.json"),
    Fault("induce induce.yaml --backpack_config '{\"num_senses\": 99}'", "num_senses"),
    Fault("induce induce.yaml --backpack_config '{\"num_senses\": 0}'", "num_senses"),
    Fault("induce induce.yaml --model dense --block_size 64", "`block_size` is 64.*40 positions"),
    Fault("pretrain on-pretrain.yaml --block_size 64", "`block_size` is 64.*40 positions"),
    Fault("induce induce.yaml --backpack_config '{\"num_senses\": 1}'", "num_senses.*2 or more"),
    Fault("adapt adapt.yaml --model nowhere --induce_steps 1", "nowhere"),
    Fault("adapt adapt.yaml --model base --induce_steps 1", "base.*has senses already"),
    Fault("delta nowhere base d1", "nowhere"),
    Fault("delta base nowhere d2", "nowhere"),
    Fault("delta base base finished", "finished.*exists"),
    Fault("delta base dense d3", "", "delta folder"),  # everything differs, which is right, and large
    Fault("nosuch", "nosuch"),
    Fault("adpt quickstart", "adapt"),
]  # fmt: skip


def faults() -> list[Fault]:
    """All of them, those of a command together."""
    recipes = {
        "adapt": "adapt.yaml",
        "pretrain": "pretrain.yaml",
        "induce": "induce.yaml",
        "evaluate": "evaluate.yaml",
        "analyze": "analyze.yaml",
    }
    listed = []
    for command, pairs in VALUES.items():
        for pair in pairs.split():
            field, _, value = pair.partition("=")
            # A value that is itself wrong may be what the answer names.
            field_named = field.removeprefix("bitext_")  # `keep` may be that of one source among several
            value_named = value if value[:1].isalpha() else "nosuch" if "nosuch" in value else field_named
            listed.append(Fault(f"{command} {recipes[command]} --{field} '{value}'", f"{field_named}|{value_named}"))
    for files, (names, tells) in FILES.items():
        listed.append(Fault(f"adapt adapt.yaml --bitext {files}", names, tells))
    return listed + ODD


def build_world(folder: Path) -> None:
    """What the faults are tried on: models, texts and recipes, sound and unsound, in `folder`."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer)
    for name in ("base", "headless", "cut-weights", "no-tokenizer", "other-vocabulary", "stolen", "pickled"):
        model.save_pretrained(folder / name)
        if name != "no-tokenizer":
            tokenizer.save_pretrained(folder / name)
    (folder / "headless" / "model.safetensors").unlink()
    weights = folder / "cut-weights" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-999])
    (folder / "pickled" / "training_args.bin").write_bytes(b"\x80\x04.")
    tokenizer.add_tokens([f"word{number}" for number in range(50)])
    tokenizer.save_pretrained(folder / "other-vocabulary")
    tokenizer = tiny_tokenizer()
    sizes = dict(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=40)
    bert = dict(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    t5 = dict(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    for name, dense in (
        ("dense", GPT2LMHeadModel(GPT2Config(**sizes))),
        ("bert", BertForMaskedLM(BertConfig(**bert))),
        ("encoder-decoder", T5ForConditionalGeneration(T5Config(**t5))),
    ):
        dense.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    (folder / "empty-folder").mkdir()

    pairs = [(f"{pair['en']} {n}", f"{pair['id']} {n}") for n, pair in enumerate(tiny_bitext(40)["translation"])]
    rows = [f"{en}\t{id}" for en, id in pairs]
    table = "\n".join(["en\tid", *rows]) + "\n"
    long = "\n".join(["en\tid", *(f"{row.replace(chr(9), ' x' + chr(9))} y" for row in rows)]) + "\n"
    texts = {
        "pairs.tsv": table,
        "other.tsv": long,
        "bad.tsv": table,
        "empty.tsv": "",
        "empty.txt": "",
        "header.tsv": "en\tid\n",
        "onelanguage.tsv": "\n".join(["en", *(en for en, _ in pairs)]),
        "headless.tsv": "\n".join(rows),
        "blank.tsv": "en\tid\n" + "\t \n" * 20,
        "some.tsv": "\n".join(["en\tid", *rows[:20], "no tab here", *rows[20:], "nor here"]),
        "nul.tsv": "\n".join(["en\tid", *rows, "a\0b\tc"]),
        "few.tsv": "\n".join(["en\tid", *rows[:3]]),
        "same.tsv": "\n".join(["en\tid", *(f"{en}\t{en}" for en, _ in pairs)]),
        "swapped.tsv": "\n".join(["id\ten", *SENTENCES]),
        "bad.jsonl": "{\n[1]\n" * 9,
        "some.jsonl": "\n".join(
            [*(json.dumps({"en": e, "id": i}) for e, i in pairs), "{", "[1]", '{"en": 3, "id": "x"}']
        ),
        "broken.tmx": "<tmx><body><tu>",
        "plain.docx": "text",
        "broken.json": '{"kind": "evaluation", ',
        "half.json": json.dumps({"kind": "evaluation", "tasks": [], "complete": False}),
        "choices.jsonl": json.dumps({"question": "a", "choices": ["b", "c"], "label": 0}) + "\n",
        "text.txt": "\n".join(f"The {animal} has {n} books." for animal in ("cat", "dog") for n in range(60)),
        "many.txt": "\n".join(f"A line of {n} words." for n in range(90)),
        "a.en": "\n".join(en for en, _ in pairs),
        "a.id": "\n".join(id for _, id in pairs),
        "a.short": "\n".join(id for _, id in pairs[:9]),
        "short.id": "one line\n",
        "list.yaml": "- a\n- b\n",
        "broken.yaml": "a: [1\n",
        "nothing.yaml": "{}\n",
        "evil.py": "raise SystemExit\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    packed = gzip.compress(table.encode())
    files = {
        "packed": packed,
        "named.tsv.gz": table.encode(),
        "pairs.tsv.xz": lzma.compress(table.encode()),
        "pairs.tsv.bz2": bz2.compress(table.encode()),
        "cut.tsv.gz": packed[:-20],
        "cut.txt.gz": gzip.compress(texts["text.txt"].encode())[:-20],
        "garbage.tsv": bytes(range(256)) * 40,
        "image.png": b"\x89PNG\r\n" + bytes(range(256)),
        "utf16.tsv": table.encode("utf-16"),
        "utf16.txt": texts["text.txt"].encode("utf-16"),
        "latin1.tsv": table.replace("kucing", "kuçing").encode("latin-1"),
        "binary.yaml": b"\xff\xfe\x00\x01",
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with gzip.open(folder / "bomb.tsv.gz", "wb", compresslevel=1) as bomb:
        bomb.write(b"en\tid\n")
        for _ in range(512):
            bomb.write(bytes(1 << 20))
    with zipfile.ZipFile(folder / "two.zip", "w") as archive:
        for name in ("x.txt", "y.txt", "z.txt"):
            archive.writestr(name, "x\n")

    recipes = {
        "adapt.yaml": ADAPT | TRAINING,
        "pretrain.yaml": PRETRAIN | TRAINING | {"prediction_loss_only": True},
        "on-pretrain.yaml": TRAINING | {"text_files": ["text.txt"], "model": "base"},
        "induce.yaml": INDUCE | TRAINING,
        "nofields.yaml": TRAINING,
        "evaluate.yaml": EVALUATE,
        "analyze.yaml": ANALYZE,
        "unknown.yaml": ADAPT | TRAINING | {"learning_rat": 1},
        "wrongtype.yaml": ADAPT | TRAINING | {"max_steps": [3]},
        "unset.yaml": ADAPT | TRAINING | {"bitext": "${NOT_SET}/pairs.tsv"},
        "matrix.yaml": MATRIX,
        "m-unknown.yaml": MATRIX | {"nosuch": 1},
        "m-climb.yaml": MATRIX | {"axes": {"variant": {"../climb": {}}}},
        "m-script.yaml": MATRIX | {"script": "evil.py"},
        "m-field.yaml": MATRIX | {"fields": {"max_step": 3}},
        "m-type.yaml": MATRIX | {"fields": {"max_steps": "many"}},
        "m-columns.yaml": MATRIX | {"columns": ["P"]},
        "m-axes.yaml": MATRIX | {"axes": []},
        "m-recipe.yaml": MATRIX | {"recipe": "nowhere.yaml"},
        "bitext.yaml": BITEXT,
        "b-unknown.yaml": BITEXT | {"nosuch": 1},
        "b-both.yaml": BITEXT | {"sources": [{"path": "pairs.tsv", "opus": "X"}]},
        "b-file.yaml": BITEXT | {"sources": [{"path": "nowhere.tsv", "licence": "CC0"}]},
        "b-language.yaml": BITEXT | {"target": "zz9"},
        "b-same.yaml": BITEXT | {"target": "en"},
        "b-bounds.yaml": BITEXT | {"filters": {"source_length": [9, 2]}},
        "b-none.yaml": BITEXT | {"sources": []},
    }
    for name, recipe in recipes.items():
        (folder / name).write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    for name, file in (("results-broken", "broken.json"), ("r-broken/matrix", "full.json")):
        (folder / name).mkdir(parents=True)
        shutil.copy(folder / "broken.json", folder / name / file)


def build_runs(folder: Path) -> None:
    """What a finished run in `folder/finished` gives: one that did not end, and one that float16 cannot hold."""
    import torch
    from safetensors.torch import load_file, save_file

    for name in ("unfinished", "infinite"):
        shutil.copytree(folder / "finished", folder / name)
    (folder / "unfinished" / "metrics.json").unlink()
    weights = load_file(folder / "infinite" / "model.safetensors")
    weights = {key: torch.full_like(value, 1e9) for key, value in weights.items()}
    save_file(weights, folder / "infinite" / "model.safetensors", metadata={"format": "pt"})


SENTENCES = [
    f"{en}\t{id}"
    for en, id in (
        ("The children play football in the garden.", "Anak-anak bermain sepak bola di kebun."),
        ("My mother cooks rice and fish for the family.", "Ibu saya memasak nasi dan ikan untuk keluarga."),
        ("The government announced new rules.", "Pemerintah mengumumkan peraturan yang baru."),
        ("We will travel to the mountains next week.", "Kami akan pergi ke gunung minggu depan."),
        ("She has been reading this book since yesterday morning.", "Dia sudah membaca buku ini sejak kemarin pagi."),
    )
    for en, id in ((f"{en[:-1]} {n} times.", f"{id[:-1]} {n} kali.") for n in range(8))
]  # fmt: skip
