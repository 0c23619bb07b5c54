"""Publishing: what is refused, what is sent, and the whole way to a Hub and back in processes of their own."""

import base64
import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset, DatasetDict
from huggingface_hub import ModelCard
from huggingface_hub.errors import RevisionNotFoundError
from peft import LoraConfig, get_peft_model
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file, save_file

from sensia_trainer.commands.publish import main
from sensia_trainer.hub import publishing
from sensia_trainer.hub.folders import finish_folder
from sensia_trainer.hub.model_card import write_card
from sensia_trainer.hub.publishing import _card_of, collect, publish
from sensia_trainer.utils.errors import UsageError
from tests.hub_server import HubServer


# The adapter reaches Conv1D layers of the backbone and linear ones of the sense network; peft remarks on both.
pytestmark = pytest.mark.filterwarnings("ignore:fan_in_fan_out")

ROOT = Path(__file__).resolve().parents[3]
METRICS = {
    "kind": "adaptation",
    "model_name": "backpack-tiny",
    "base_model": "backpack-base",
    "base_is_folder": True,  # as of every run that began from one
    "languages": {"source": "en", "target": "id"},
    "data": {"name": "ten sentences", "pairs": 5, "licence": "CC0"},
    "after": {"target_perplexity": 290.0, "pairs": 5},
}
DATASET_CARD = """---
language: [en, id]
license: cc-by-4.0
pretty_name: Five pairs
task_categories: [translation]
---

# Five pairs
"""


def save_model(model, tokenizer, folder: Path) -> Path:
    """A model folder like those that commands leave: two weight files here, code, metrics and card."""
    model.save_pretrained(folder, max_shard_size="100KB")
    tokenizer.save_pretrained(folder)
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    finish_folder(folder)
    return folder


@pytest.fixture(scope="module")
def world(tmp_path_factory, tiny_model, tokenizer):
    """Folders to publish, and the model they come from."""
    folder = tmp_path_factory.mktemp("world")
    torch.manual_seed(0)
    model = tiny_model()
    save_model(model, tokenizer, folder / "backpack-tiny")
    (folder / "backpack-base").mkdir()
    (folder / "backpack-tiny" / "checkpoint-5").mkdir()
    (folder / "backpack-tiny" / "checkpoint-5" / "optimizer.pt").write_bytes(b"state")
    (folder / "backpack-tiny" / ".cache").mkdir()
    (folder / "backpack-tiny" / "settings.json").write_text("{}")

    batch = tokenizer(["Where is the nearest station?"], return_tensors="pt")
    with torch.no_grad():
        expected = model(**batch).logits[0, -1].tolist()
        adapted = get_peft_model(
            model, LoraConfig(target_modules=["c_attn"], init_lora_weights=False, r=2, lora_alpha=64)
        )
        expected_adapted = adapted(**batch).logits[0, -1].tolist()
    adapter = folder / "adapter"
    adapted.peft_config["default"].base_model_name_or_path = str(folder / "backpack-tiny")
    adapted.save_pretrained(adapter)
    (adapter / "metrics.json").write_text(json.dumps(METRICS | {"base_model": str(folder / "backpack-tiny")}))
    finish_folder(adapter)

    pairs = [{"en": f"Page {n} of {2 * n}", "id": f"Halaman {n} dari {2 * n}"} for n in range(1, 6)]
    DatasetDict({"train": Dataset.from_dict({"translation": pairs})}).save_to_disk(folder / "bitext")
    (folder / "bitext" / "README.md").write_text(DATASET_CARD)
    (folder / "bitext" / "statistics.json").write_text("{}")
    return {"folder": folder, "logits": expected, "adapted_logits": expected_adapted, "pairs": pairs}


@pytest.fixture
def model_folder(tmp_path, world):
    """A copy of the model folder that a test may spoil."""
    copy = tmp_path / "backpack-tiny"
    subprocess.run(["cp", "-R", world["folder"] / "backpack-tiny", copy], check=True)
    (tmp_path / "backpack-base").mkdir()
    return copy


def zipped(**members) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return file.getvalue()


def refusal(folder, **options) -> str:
    with pytest.raises(ValueError) as refused:
        publish(folder, "owner/x", dry_run=True, **options)
    return str(refused.value)


def paths(report) -> list[str]:
    return [path for path, _ in report["files"]]


# -- what is checked ------------------------------------------------------------------------------------------------


def test_what_a_run_made_on_its_way_stays_here(model_folder, capsys):
    for name in (
        "induced/model.safetensors",
        "vocabulary/tokenizer.json",
        "vocabulary-id/tokenizer.json",
        "induced.txt",
        "damaged-checkpoint-3/optimizer.pt",
    ):
        (model_folder / name).parent.mkdir(exist_ok=True)
        (model_folder / name).write_text("text that may not be passed on")
    main([str(model_folder), "owner/backpack-tiny", "--dry-run"])
    listed = capsys.readouterr().out
    assert "model.safetensors" in listed and "induced" not in listed and "vocabulary" not in listed
    assert "damaged" not in listed


def test_dry_run_lists_files_and_sizes_and_sends_nothing(world, capsys):
    folder = world["folder"] / "backpack-tiny"
    main([str(folder), "owner/backpack-tiny", "--dry-run"])
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[1]: int(line.split()[0].replace(",", "")) for line in lines[:-2]}
    assert {"README.md", "config.json", "tokenizer.json", "metrics.json", "modeling_backpack.py"} <= set(listed)
    assert not any("checkpoint" in path or path.startswith(".") or path == "settings.json" for path in listed)
    assert listed["modeling_backpack.py"] == (ROOT / "modeling_backpack" / "modeling_backpack.py").stat().st_size
    assert "nothing was sent" in lines[-1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("training_args.bin", b"anything"),
        ("optimizer.pt", b"anything"),
        ("state.pkl", b"anything"),
        ("innocent.json", pickle.dumps({"a": 1})),
        ("vectors.npy", b"\x93NUMPY"),
        ("STATE.PKL", b"anything"),
        ("state.pkl.gz", b"anything"),
        ("weights.pth.tar", b"anything"),
        ("notes", pickle.dumps(Path("a"), protocol=0)),
        ("vocab.txt", b"cos\nsystem\n(S'true'\ntR."),
        ("settings.yaml", pickle.dumps(Path("a"), protocol=1)),
        ("archive.dat", zipped(a=pickle.dumps({"a": 1}))),
    ],
)
def test_pickles_are_refused_by_suffix_and_by_content(model_folder, name, content):
    (model_folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(name)} is a pickle"):
        publish(model_folder, "owner/x", dry_run=True)


def test_an_archive_with_a_pickle_is_refused(model_folder):
    with zipfile.ZipFile(model_folder / "weights.zip", "w") as archive:
        archive.writestr("archive/data.pkl", b"anything")
    with pytest.raises(ValueError, match="weights.zip is a pickle"):
        publish(model_folder, "owner/x", dry_run=True)


def test_damaged_weights_are_refused(model_folder):
    weights = next(model_folder.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match=f"{weights.name} is damaged"):
        publish(model_folder, "owner/x", dry_run=True)


@pytest.mark.parametrize(
    ("kind", "secret"),
    [
        ("a Hugging Face token", "hf_" + "a1B2" * 9),
        ("a GitHub token", "ghp_" + "a1B2" * 9),
        ("an AWS key", "AKIA" + "A1B2" * 4),
        ("an API key", "sk-" + "a1B2" * 10),
        ("a private key", "-----BEGIN RSA " + "PRIVATE KEY-----"),
    ],
)
def test_secrets_are_refused_with_their_place_and_not_repeated(model_folder, kind, secret):
    (model_folder / "run.yaml").write_text(f"steps: 10\ntoken: {secret}\n")
    with pytest.raises(ValueError, match=f"run.yaml, line 2, holds {kind}") as refused:
        publish(model_folder, "owner/x", dry_run=True)
    assert secret not in str(refused.value)


TOKEN = "hf_" + "a1B2" * 9


def in_safetensors(folder):
    name = sorted(folder.glob("*.safetensors"))[0]
    save_file(load_file(name), name, {"format": "pt", "command": f"push --token {TOKEN}"})
    return name.name


def in_an_image(folder):
    metadata = PngInfo()
    metadata.add_text("Comment", f"made with {TOKEN}", zip=True)
    Image.new("L", (2, 2)).save(folder / "figure.png", pnginfo=metadata)
    return "figure.png"


def in_json_as_base64(folder):
    encoded = base64.b64encode(f'{{"token": "{TOKEN}"}}'.encode()).decode()
    (folder / "extra.json").write_text(json.dumps({"state": encoded}))
    return "extra.json"


def in_a_nested_folder_packed(folder):
    (folder / "logs").mkdir()
    (folder / "logs" / "run.jsonl.gz").write_bytes(gzip.compress(f"x\n{TOKEN}".encode()))
    return "logs/run.jsonl.gz"


def in_an_archive(folder):
    (folder / "all.zip").write_bytes(zipped(notes=f"token {TOKEN}".encode()))
    return "all.zip"


def in_the_front_matter(folder):
    card = folder / "README.md"
    card.write_text(card.read_text().replace("---\n", f"---\nextra: {TOKEN}\n", 1))
    return "README.md"


def in_code(folder):
    with open(folder / "modeling_backpack.py", "a") as file:
        file.write(f"\nTOKEN = {list(TOKEN.encode())}.hex  # {TOKEN.encode().hex()}\n")
    return "modeling_backpack.py"


@pytest.mark.parametrize(
    "hide",
    [in_safetensors, in_an_image, in_json_as_base64, in_a_nested_folder_packed, in_an_archive, in_the_front_matter]
    + [in_code],
    ids=lambda function: function.__name__,
)
def test_a_token_is_found_wherever_it_hides(model_folder, hide):
    name = hide(model_folder)
    message = refusal(model_folder)
    assert re.search(rf"{re.escape(name)}, line \d+, holds a Hugging Face token", message) and TOKEN not in message


def test_a_token_is_found_in_the_tables_of_a_dataset(tmp_path):
    texts = [f"line {n}" for n in range(50)] + [base64.b64encode(f"key {TOKEN}".encode()).decode()]
    Dataset.from_dict({"translation": [{"en": text, "id": "x"} for text in texts]}).save_to_disk(tmp_path / "pairs")
    (tmp_path / "pairs" / "README.md").write_text(DATASET_CARD)
    message = refusal(tmp_path / "pairs", repo_type="dataset")
    assert "data/train-00000-of-00001.parquet, line 1, holds a Hugging Face token" in message


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[{"role": "user", "content": TOKEN}]]),
        pa.array([["a", TOKEN]], pa.large_list(pa.string())),
        pa.array([[("key", TOKEN)]], pa.map_(pa.string(), pa.string())),
        pa.array([TOKEN, "b", "b"]).dictionary_encode(),
        pa.array([f"key {TOKEN}".encode()]),
    ],
    ids=lambda column: str(column.type),
)
def test_a_token_is_found_in_columns_of_every_type(tmp_path, column):
    (tmp_path / "README.md").write_text(DATASET_CARD)
    pq.write_table(pa.table({"column": column}), tmp_path / "rows.parquet")
    assert "rows.parquet, line 1, holds a Hugging Face token" in refusal(tmp_path, repo_type="dataset")


def test_data_goes_under_any_name(tmp_path):
    names = ["README.md", "runs/a.csv", "settings.json", "vocabulary/words.csv"]
    for name in [*names, "stages/1.json", "__pycache__/a.pyc", "data/.cache/x"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(DATASET_CARD if name == "README.md" else "a,b\n")
    assert paths(publish(tmp_path, "owner/x", repo_type="dataset", dry_run=True)) == names


def test_metrics_and_configurations_go_without_tokens_and_folders(model_folder):
    metrics = METRICS | {"hub_token": "anything", "command": f"sensia adapt --token {TOKEN}", "out": "/root/runs/x"}
    (model_folder / "metrics.json").write_text(json.dumps(metrics))
    for name in ("config.json", "tokenizer_config.json"):
        config = json.loads((model_folder / name).read_text())
        (model_folder / name).write_text(json.dumps(config | {"_name_or_path": "/home/me/x", "is_local": True}))
    write_card(model_folder, metrics=METRICS)
    with tempfile.TemporaryDirectory() as scratch:
        changes = {"license": None, "base_model": None, "title": None}
        uploads = collect(model_folder, "owner/x", "model", Path(scratch), **changes)
    for upload in uploads:
        assert not re.search(rb"hf_a1B2|anything|/root/runs|/home/me", upload.read()), upload.path


@pytest.mark.parametrize("folder", ["/home/me/runs", "/root/runs", "C:\\Users\\me\\runs", "{cwd}/runs", "{tmp}/runs"])
def test_folders_of_a_machine_are_refused(model_folder, folder):
    folder = folder.format(cwd=os.getcwd(), tmp=tempfile.gettempdir())
    (model_folder / "notes.yaml").write_text(f"a: 1\nfrom: {folder}/a.tsv\n")
    assert "notes.yaml, line 2, names a folder of a machine" in refusal(model_folder)
    (model_folder / "notes.yaml").write_text("see: https://example.org/home/me/a and owner/home/x\n")
    assert publish(model_folder, "owner/x", dry_run=True)


def test_weights_that_are_not_numbers_or_not_all_there_are_refused(model_folder):
    shard = sorted(model_folder.glob("*.safetensors"))[0]
    weights = load_file(shard)
    name = sorted(weights)[0]
    for bad in (float("nan"), float("inf")):
        save_file(weights | {name: weights[name].flatten().fill_(bad).view_as(weights[name])}, shard, {"format": "pt"})
        assert f"{shard.name} holds NaN or infinity in {name!r}" in refusal(model_folder)
    rest = {key: value for key, value in weights.items() if key != name}
    save_file(rest, shard, {"format": "pt"})
    assert f"config.json asks for the weights {name!r}, which are missing" in refusal(model_folder)
    save_file(rest | {name: torch.zeros(3)}, shard, {"format": "pt"})
    assert f"the weight {name!r} has the shape [3] in the file and" in refusal(model_folder)


def test_code_that_is_not_whole_is_refused(model_folder):
    for name in ("conversion_backpack.py", "sentence_backpack.py"):
        code = (model_folder / name).read_text()
        (model_folder / name).unlink()
        by = {"conversion_backpack.py": "modeling_backpack.py", "sentence_backpack.py": "modules.json"}[name]
        assert f"{by} names the code file {name}, which is missing" in refusal(model_folder)
        (model_folder / name).write_text(code)


# -- licence, base model, title --------------------------------------------------------------------------------------


def front_matter(folder, **options) -> ModelCard:
    with tempfile.TemporaryDirectory() as scratch:
        changes = {"license": None, "base_model": None, "title": None} | options
        uploads = collect(folder, "owner/x", "model", Path(scratch), **changes)
    return ModelCard(next(upload.read() for upload in uploads if upload.path == "README.md").decode())


def test_an_unknown_licence_is_refused_and_can_be_given(model_folder, capsys):
    (model_folder / "metrics.json").write_text(json.dumps(METRICS | {"data": {"name": "letters", "pairs": 5}}))
    write_card(model_folder)
    assert "licence of the weights is unknown" in refusal(model_folder)
    assert "--license" in refusal(model_folder)
    main_with(model_folder, "--license", "cc-by-4.0")
    card = front_matter(model_folder, license="cc-by-4.0")
    assert card.data.license == "cc-by-4.0"
    assert "Licence of the weights: cc-by-4.0, as who released them states" in card.text
    edited = model_folder / "README.md"
    edited.write_text(edited.read_text() + "\nA line of the author's own.\n")
    card = front_matter(model_folder, license="cc-by-4.0")
    assert card.data.license == "cc-by-4.0" and "A line of the author's own." in card.text
    assert "--license" in refusal(model_folder)


def test_an_edited_card_keeps_its_base_and_takes_what_is_asked(model_folder):
    edited = model_folder / "README.md"
    rendered = edited.read_text()
    edited.write_text(rendered.replace("---\n", "---\n# A heading of comments\nbase_model: someone/v2\n", 1))
    card = front_matter(model_folder, title="Mine")
    assert card.data.base_model == "someone/v2"
    assert "\n# Mine\n" in card.text
    other = "license: other\nlicense_name: mine\nlicense_link: README.md\n"
    edited.write_text(re.sub(r"license: .*\n", other, rendered) + "\nMore.\n")
    card = front_matter(model_folder, license="cc-by-4.0")
    assert card.data.license == "cc-by-4.0" and not {"license_name", "license_link"} & card.data.to_dict().keys()
    (model_folder / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": []}')
    text = _card_of(model_folder, "owner/x", True, {"base_model": "org/base", "license": None, "title": None})
    assert ModelCard(text).data.base_model_relation == "adapter"


def test_a_branch_that_is_not_there_is_made(model_folder, monkeypatch):
    calls = []

    class Api:
        def __init__(self, token=None):
            pass

        def __getattr__(self, name):
            return lambda *_, **given: calls.append((name, given)) or SimpleNamespace(oid="1")

        def repo_info(self, *_, **given):
            raise RevisionNotFoundError("no branch", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(publishing, "HfApi", Api)
    monkeypatch.setattr(publishing.RepoCard, "validate", lambda *_: None)
    assert publish(model_folder, "owner/x", revision="trial")["changed"]
    assert [name for name, _ in calls] == ["create_repo", "create_branch", "create_commit"]
    assert calls[1][1]["branch"] == calls[2][1]["revision"] == "trial" and calls[1][1]["exist_ok"]


def test_what_adapt_makes_is_published_as_it_is(model_folder, tmp_path):
    """Its base model is a folder that lies elsewhere; an id can be given for it."""
    (tmp_path / "backpack-base").rmdir()
    card = front_matter(model_folder)
    assert card.data.base_model is None and "`backpack-base`, a Backpack language model of English" in card.text
    assert publish(model_folder, "owner/x", dry_run=True)
    main_with(model_folder, "--base-model", "other/backpack-base")
    for _ in range(2):  # as it was rendered, then edited
        card = front_matter(model_folder, base_model="other/backpack-base", title="Mine")
        assert card.data.base_model == "other/backpack-base" and card.data.base_model_relation == "finetune"
        assert "\n# Mine\n" in card.text and 'repo = "owner/x"' in card.text
        (model_folder / "README.md").write_text((model_folder / "README.md").read_text() + "\nMore.\n")
    with pytest.raises(ValueError, match="`base_model` is 'backpack-base', but must be the id"):
        publish(model_folder, "owner/x", base_model="backpack-base", dry_run=True)


def main_with(folder, *options):
    main([str(folder), "owner/x", "--dry-run", *options])


def test_an_incomplete_card_is_refused_by_field(model_folder):
    card = model_folder / "README.md"
    card.write_text(card.read_text().replace("license: apache-2.0\n", "") + "\nEdited.\n")
    with pytest.raises(ValueError, match="`license` is missing"):
        publish(model_folder, "owner/x", dry_run=True)
    card.write_text("---\ntags: [\n---\n")
    with pytest.raises(ValueError, match="front matter of the card is not YAML"):
        publish(model_folder, "owner/x", dry_run=True)
    card.unlink()
    with pytest.raises(ValueError, match="no card"):
        publish(model_folder, "owner/x", dry_run=True)


def test_missing_code_weights_and_broken_links_are_refused(model_folder):
    (model_folder / "modeling_backpack.py").unlink()
    shard = sorted(model_folder.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(ValueError, match="names the code file modeling_backpack.py") as refused:
        publish(model_folder, "owner/x", dry_run=True)
    assert f"the weight file {shard.name} is missing" in str(refused.value)
    (model_folder / "modeling_backpack.py").symlink_to("nowhere.py")
    with pytest.raises(ValueError, match="modeling_backpack.py is a broken link"):
        publish(model_folder, "owner/x", dry_run=True)


def test_links_are_followed_to_code_alone(model_folder, tmp_path):
    (tmp_path / "diary").mkdir()
    (tmp_path / "diary" / "today.md").write_text("Dear diary")
    for name, target in (("notes", "../diary"), ("notes.md", "../diary/today.md")):
        (model_folder / name).symlink_to(target)
        with pytest.raises(ValueError, match=f"{re.escape(name)} is a link, but only code"):
            publish(model_folder, "owner/x", dry_run=True)
        (model_folder / name).unlink()
    assert "README.md" in paths(publish(model_folder, "owner/x", dry_run=True))


def test_suffixes_that_only_look_like_those_of_pickles(model_folder):
    (model_folder / "pairs.pt.jsonl").write_text("{}")  # Portuguese
    assert "pairs.pt.jsonl" in paths(publish(model_folder, "owner/x", dry_run=True))


def test_an_adapter_whose_base_model_is_nowhere_is_refused(model_folder, tmp_path, world):
    adapter = tmp_path / "adapter"
    subprocess.run(["cp", "-R", world["folder"] / "adapter", adapter], check=True)
    assert publish(adapter, "owner/x", dry_run=True)
    subprocess.run(["mv", model_folder, tmp_path / "elsewhere"], check=True)
    with pytest.raises(ValueError, match="adapter_config.json names the base model 'backpack-tiny'.*--base-model"):
        publish(adapter, "owner/x", dry_run=True)
    assert publish(adapter, "owner/x", base_model="owner/backpack-tiny", dry_run=True)


def test_malformed_arguments_are_refused(world, capsys):
    folder = world["folder"] / "backpack-tiny"
    with pytest.raises(ValueError, match="'owner/name'"):
        publish(folder, "name-alone", dry_run=True)
    with pytest.raises(ValueError, match="'model', 'dataset' or 'space'"):
        publish(folder, "owner/x", repo_type="spaces", dry_run=True)
    with pytest.raises(ValueError, match="is not a folder"):
        main([str(world["folder"] / "nowhere"), "owner/x"])
    with pytest.raises(UsageError, match="--licence.*license"):
        main([str(folder), "owner/x", "--licence", "mit"])


# -- what goes ---------------------------------------------------------------------------------------------------

PUBLISH_TWICE = """
import json, sys
from pathlib import Path
from datasets import load_dataset
from huggingface_hub import HfApi
from sensia_trainer.hub import publishing
from sensia_trainer.hub.publishing import _card_of, collect, publish

world, data = sys.argv[1], Path("pairs")
data.mkdir()
(data / "README.md").write_text(sys.argv[2])
(data / "a.csv").write_text("en,id\\none,satu\\n")

def push(**options):
    return publish(data, "owner/pairs", repo_type="dataset", **options)

reports = [push(dry_run=True), push()]
(data / "a.csv").rename(data / "b.csv")
reports += [push(dry_run=True), push(), push()]
publish(f"{world}/adapter", "owner/adapter")
HfApi().upload_file(path_or_fileobj=b"old", path_in_repo="more/old.md", repo_id="owner/adapter")
HfApi().upload_file(path_or_fileobj=b"", path_in_repo=".gitattributes", repo_id="owner/adapter")
reports += [publish(f"{world}/adapter", "owner/adapter") for _ in range(2)]
rows = load_dataset("owner/pairs", split="train").to_list()
(data / "README.md").write_text(sys.argv[2] + "refused by the Hub")
try:
    publish(data, "owner/refused", repo_type="dataset")
except ValueError as error:
    refused = str(error)
print(json.dumps({"reports": reports, "rows": rows, "refused": refused}))
"""


@pytest.mark.distributed
def test_what_is_gone_from_the_folder_goes_from_the_repository(world, tmp_path):
    with HubServer() as hub:
        environment = os.environ | hub.environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", PUBLISH_TWICE, str(world["folder"]), DATASET_CARD]
        run = {"cwd": tmp_path, "env": environment, "text": True, "stdin": subprocess.DEVNULL, "capture_output": True}
        done = subprocess.run(command, **run)
        assert done.returncode == 0, done.stderr
        assert set(hub.files("datasets/owner/pairs")) == {"README.md", "b.csv"}
        assert len(hub.commits("datasets/owner/pairs")) == 2
        files = hub.files("models/owner/adapter")
        assert ".gitattributes" in files and "more/old.md" not in files and "adapter_model.safetensors" in files
        assert "datasets/owner/refused" not in hub.repos
    result = json.loads(done.stdout.splitlines()[-1])
    removed = [[], [], ["a.csv"], ["a.csv"], [], ["more/old.md"], []]
    assert [report["removed"] for report in result["reports"]] == removed
    assert [report.get("changed") for report in result["reports"]] == [None, True, None, True, False, True, False]
    assert result["rows"] == [{"en": "one", "id": "satu"}]
    assert "refused by the Hub" in result["refused"]


# -- the whole way --------------------------------------------------------------------------------------------------

PUBLISH_THE_REST = """
import json, sys
from sensia_trainer.hub import publishing
from sensia_trainer.hub.publishing import _card_of, collect, publish

world = sys.argv[1]
model = f"{world}/backpack-tiny"
reports = {"again": publish(model, "owner/backpack-tiny", tag="v1.0", collection="Sense adaptation")}
reports["adapter"] = publish(f"{world}/adapter", "owner/adapter", private=False)
for name in ("dataset", "dataset_again"):
    reports[name] = publish(f"{world}/bitext", "owner/bitext", repo_type="dataset")
print(json.dumps(reports))
"""
LOAD = """
import json, sys
import torch

sys.modules["modeling_backpack"] = None  # the code has to come from the Hub
from datasets import load_dataset
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

repo = {"pretrained_model_name_or_path": "owner/backpack-tiny", "revision": "v1.0", "trust_remote_code": True}
config = AutoConfig.from_pretrained(**repo)
tokenizer = AutoTokenizer.from_pretrained(**repo)
model = AutoModelForCausalLM.from_pretrained(**repo).eval()
batch = tokenizer(["Where is the nearest station?"], return_tensors="pt")
with torch.no_grad():
    logits = model(**batch).logits[0, -1].tolist()
    adapted = PeftModel.from_pretrained(model, "owner/adapter").eval()
    adapted_logits = adapted(**batch).logits[0, -1].tolist()
loaded = {
    "code": type(model).__module__,
    "senses": config.num_senses,
    "logits": logits,
    "adapted_logits": adapted_logits,
    "pairs": load_dataset("owner/bitext", split="train")["translation"][:],
}
print(json.dumps(loaded))
"""


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.timeout(900)
def test_push_break_resume_push_again_and_load(world, tmp_path):
    folder = world["folder"] / "backpack-tiny"
    command = [sys.executable, str(ROOT / "examples" / "publish.py"), str(folder), "owner/backpack-tiny"]
    command += ["--tag", "v1.0", "--collection", "Sense adaptation"]
    with HubServer() as hub:
        environment = os.environ | hub.environment(tmp_path) | {"PYTHONPATH": str(ROOT)}
        run = {"cwd": tmp_path, "env": environment, "text": True, "stdin": subprocess.DEVNULL}

        # The process dies while the second weight file is on its way: nothing is committed.
        hub.faults = [None, "stall"]
        broken = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **run)
        while not (hub.stalled.wait(0.1) and hub.uploads):  # the first file has arrived, the second has not
            assert broken.poll() is None, broken.communicate()[1]
        broken.kill()
        broken.communicate()
        before = list(hub.uploads)
        assert before and hub.commits("models/owner/backpack-tiny") == []

        # The same command goes on; a connection cut on the way is survived; one commit holds everything.
        hub.faults = ["cut"]
        done = subprocess.run(command, capture_output=True, **run)
        assert done.returncode == 0, done.stderr
        assert "Published as commit" in done.stdout
        assert hub.faults == []
        assert len(hub.uploads) == len(set(hub.uploads)), "a file that had arrived was sent again"
        repo = hub.repos["models/owner/backpack-tiny"]
        assert repo.private and hub.commits("models/owner/backpack-tiny") == ["Upload backpack-tiny"]
        assert repo.tags == {"v1.0": repo.history[-1]["oid"]}
        assert [item["id"] for item in next(iter(hub.collections.values()))["items"]] == ["owner/backpack-tiny"]
        files = hub.files("models/owner/backpack-tiny")
        listed = {file.name for file in folder.iterdir() if file.is_file()} - {"settings.json"}
        assert set(files) == listed
        rewritten = {"README.md", "config.json", "tokenizer_config.json", "metrics.json"}
        assert all(files[name] == (folder / name).read_bytes() for name in listed - rewritten)
        assert json.loads(files["metrics.json"]) == METRICS
        card = ModelCard(files["README.md"].decode())
        assert card.data.base_model == "owner/backpack-base"
        assert 'repo = "owner/backpack-tiny"' in card.text

        results = []
        for script in (PUBLISH_THE_REST, LOAD):
            done = subprocess.run([sys.executable, "-c", script, str(world["folder"])], capture_output=True, **run)
            assert done.returncode == 0, done.stderr
            results.append(json.loads(done.stdout.splitlines()[-1]))
        reports, loaded = results

        # A second push of the same content makes no commit.
        assert not reports["again"]["changed"] and reports["again"]["commit"] == repo.history[-1]["oid"]
        assert len(hub.commits("models/owner/backpack-tiny")) == 1
        assert reports["dataset"]["changed"] and not reports["dataset_again"]["changed"]
        assert paths(reports["dataset"]) == ["README.md", "data/train-00000-of-00001.parquet", "statistics.json"]
        assert not hub.repos["models/owner/adapter"].private
        adapter = json.loads(hub.files("models/owner/adapter")["adapter_config.json"])
        assert adapter["base_model_name_or_path"] == "owner/backpack-tiny"

        # What comes back is what was sent.
        assert loaded["code"].startswith("transformers_modules.")
        assert loaded["senses"] == 4
        torch.testing.assert_close(torch.tensor(loaded["logits"]), torch.tensor(world["logits"]))
        adapted = torch.tensor(loaded["adapted_logits"])
        torch.testing.assert_close(adapted, torch.tensor(world["adapted_logits"]))
        assert (adapted - torch.tensor(loaded["logits"])).abs().max() > 1e-3
        assert loaded["pairs"] == world["pairs"]
