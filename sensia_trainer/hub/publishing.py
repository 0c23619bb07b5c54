"""A folder becomes a repository on the Hub: checked first, then uploaded in one commit, tagged and collected."""

import io
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard, RepoCard
from huggingface_hub.errors import (
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ..explorer.models import base_at_hand
from ..explorer.space import space_files
from ..utils.files import DELTA_FILE, portable, read_json
from .folders import without_origin
from .model_card import base_model_name, is_as_rendered, is_hub_id, render_card
from .validation import check_uploads


# How `datasets` saves a dataset; the Hub gets Parquet files instead.
OF_DATASETS = ("*.arrow", "state.json", "dataset_info.json", "dataset_dict.json", "recipe.json")
# What a run leaves behind for its own resumption, and no repository needs.
LEFT_OUT = ("checkpoint-*", "writing-*", "runs", "settings.json", "before.json", "given.json")
LEFT_OUT += ("damaged-*", "induced", "induced.txt", "induced.json", "vocabulary", "vocabulary-*")
OF_BITEXT = ("stages", "downloads")  # what `sensia bitext` leaves beside its data
NOWHERE = (".*", "__pycache__", "*.pyc", "*.lock", "*.part")
KEPT = (".gitattributes", ".eval_results")
ROWS_A_FILE = 500_000  # of a dataset


@dataclass(frozen=True)
class Upload:
    """One file of a repository: its path there, and what it holds (a file on disk, or bytes made for the upload)."""

    path: str
    content: Path | bytes

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def open(self):
        return io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def publish(
    folder,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool = True,
    license: str | None = None,
    base_model: str | None = None,
    title: str | None = None,
    tag: str | None = None,
    collection: str | None = None,
    message: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> dict:
    """Make `repo_id` on the Hub hold what `folder` holds: code, weights and card in one commit.

    Files that the repository has and the folder has not are deleted in that commit (earlier commits keep them). A
    broken upload goes on when the same call is made again: files that arrived whole are not sent again. A folder that
    is on the Hub already makes no new commit.

    Args:
        folder: A model or adapter folder, or a dataset folder (`datasets.save_to_disk`, or plain data files).
            Symbolic links are followed to code (`*.py`) alone. Checkpoints, caches and hidden files are left out.
        repo_id: "owner/name"; created if missing.
        repo_type: "model", "dataset", or "space" for a Space that shows the model of the folder (`sensia explore`).
        private: Visibility of a repository that is created; an existing one keeps its own.
        license: Licence of the weights in place of what the card says, as an identifier of the Hub.
        base_model: "owner/name" of the model that training began with, where the card knows only a folder's name. One
            that lies beside the folder is taken to be published under the same owner.
        title: First line of the card in place of the one made of size and languages.
        tag: Name of a revision tag to put on the commit, such as "v1.0".
        collection: Title of a collection of the same owner that is to list the repository; created if missing.
        message: The commit message.
        revision: Branch to commit to, `main` by default.
        token: In place of the one that `hf auth login` or HF_TOKEN gives.
        dry_run: Check and list only; nothing is sent.

    Returns:
        `repo_id`, `files` [[path, bytes], ...], `bytes`, `removed` (paths that the repository loses; None in a dry
        run without the Hub), `dry_run`; after an upload also `url`, `commit` and `changed` (was a commit made).

    Raises:
        `ValueError`: for a folder with pickles, secrets, links, folders of this machine, damaged weights or ones that
            do not fill the model, missing code, an unknown licence, or an incomplete card; a malformed `repo_id` or
            `base_model`; a `tag` that marks another commit already.
    """
    if not is_hub_id(repo_id):
        raise ValueError(f"`repo_id` is {repo_id!r}, but must be 'owner/name'.")
    if repo_type not in ("model", "dataset", "space"):
        raise ValueError(f"`repo_type` is {repo_type!r}, but must be 'model', 'dataset' or 'space'.")
    if base_model is not None and not is_hub_id(base_model):
        raise ValueError(f"`base_model` is {base_model!r}, but must be the id of a Hub repository, 'owner/name'.")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as scratch:
        changes = {"license": license, "base_model": base_model, "title": title}
        if repo_type == "space":
            uploads = collect_space(folder, repo_id, Path(scratch), **changes)
        else:
            uploads = collect(folder, repo_id, repo_type, Path(scratch), **changes)
        check_uploads(uploads, repo_type)
        try:
            before, present = _on_the_hub(api, repo_id, repo_type, revision)
            gone = present - {upload.path for upload in uploads} - {".gitattributes"}
            removed = sorted(path for path in gone if repo_type == "space" or not (Path(folder) / path).exists())
        except (OfflineModeIsEnabled, HTTPError):
            if not dry_run:
                raise
            removed = None
        report = {
            "repo_id": repo_id,
            "files": [[upload.path, upload.size] for upload in uploads],
            "bytes": sum(upload.size for upload in uploads),
            "removed": removed,
            "dry_run": dry_run,
        }
        if dry_run:
            return report
        commit = _upload(api, uploads, removed, repo_id, repo_type, private, revision, message)
        if tag:
            _tag(api, repo_id, repo_type, tag, commit["commit"])
        if collection:
            owner = repo_id.split("/")[0]
            slug = api.create_collection(collection, namespace=owner, private=private, exists_ok=True).slug
            api.add_collection_item(slug, repo_id, item_type=repo_type, exists_ok=True)
        return report | commit | {"changed": commit["commit"] != before}


def collect(folder, repo_id: str, repo_type: str, scratch: Path, *, is_all=True, **changes) -> list[Upload]:
    """The files of a folder as they will stand in the repository, sorted by path.

    The card is that of `repo_id`, or of the folder where the repository has more than that (not `is_all`), with
    `changes` (`license`, `base_model`, `title`); configurations and metrics do not say where on this machine anything
    lay. A dataset saved by `datasets.save_to_disk` becomes Parquet files (in `scratch`), which is what the Hub loads.

    Raises:
        `ValueError`: if `folder` is none, or holds links that are not followed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder.")
    if repo_type == "dataset" and ((folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()):
        uploads = _parquet_files(folder, scratch)
        files = [path for path in _walk(folder, repo_type) if not any(map(path.match, OF_DATASETS))]
    else:
        uploads, files = [], _walk(folder, repo_type)
    _check_links(folder, files)
    uploads += [Upload(path.relative_to(folder).as_posix(), path) for path in files]
    if repo_type == "model":
        prepare = {
            "README.md": lambda path: _card_of(folder, repo_id, is_all, changes).encode("utf-8"),
            "adapter_config.json": lambda path: _as_json(_adapter_config(folder, repo_id, changes["base_model"])),
            "config.json": lambda path: _as_json(without_origin(read_json(path))),
            "tokenizer_config.json": lambda path: _as_json(without_origin(read_json(path))),
            "metrics.json": lambda path: _as_json(portable(read_json(path))),
        }
        uploads = [
            Upload(upload.path, prepare[upload.path](upload.content)) if upload.path in prepare else upload
            for upload in uploads
        ]
    return sorted(uploads, key=lambda upload: upload.path)


def collect_space(folder, repo_id: str, scratch: Path, *, title=None, **changes) -> list[Upload]:
    """The files of a Space that shows a model: the page, its code, the model, and the model that it began as where
    that lies beside it. The model is checked as it would be for a repository of its own.

    Raises:
        `ValueError`: as [`publish`] for the model; where Gradio is not installed.
    """
    folder = Path(folder)
    if (folder / DELTA_FILE).is_file():
        raise ValueError(
            f"{str(folder)!r} is a delta, which no page can show: publish what `sensia delta DELTA BASE MODEL` puts "
            "together."
        )
    model = collect(folder, repo_id, "model", scratch, is_all=False, title=None, **changes)
    check_uploads(model, "model")
    card = next(upload for upload in model if upload.path == "README.md").read().decode("utf-8")
    name = folder.resolve().name
    models = {name: model}
    base = base_at_hand(folder, read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {})
    if base is not None and Path(base).resolve().name != name:  # whose place it would take
        models[Path(base).resolve().name] = collect(
            base, repo_id, "model", scratch, is_all=False, **dict.fromkeys(changes), title=None
        )
    page = space_files(name, ModelCard(card).data.to_dict(), title)
    uploads = [Upload(path, content) for path, content in page.items()]
    # The package's code has the model's as well.
    uploads += [
        Upload(f"models/{one}/{upload.path}", upload.content)
        for one, files in models.items()
        for upload in files
        if not upload.path.endswith(".py")
    ]
    return sorted(uploads, key=lambda upload: upload.path)


def _as_json(content) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _card_of(folder: Path, repo_id: str, is_all: bool, changes: dict) -> str:
    """The card of a repository: rendered again where it is as it was rendered; where somebody edited it, with its
    snippets, licence, title and base model changed. Without the id of one that holds more than the folder."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    try:
        card = ModelCard(text, ignore_metadata_errors=True)
    except yaml.YAMLError:  # whose mending is said when it is checked
        return text
    named = card.data.base_model
    if is_as_rendered(folder):
        base = _public_base(read_json(folder / "metrics.json").get("base_model") or named, folder, repo_id)
        facts = {"base_model": base, "base_is_folder": False}  # an id by now, or nothing but a name
        return render_card(folder, repo_id=repo_id if is_all else None, **facts | _given(changes))
    if is_all and not (folder / DELTA_FILE).is_file():  # whose snippets are for what it gives
        text = re.sub(r'^repo = ".*"$', f'repo = "{repo_id}"', text, flags=re.MULTILINE)
    if changes["title"]:
        front = re.match(r"---\n.*?\n---\n", text, flags=re.DOTALL)  # whose comments begin as a heading does
        end = front.end() if front else 0
        text = text[:end] + re.sub(
            r"^# .*$", lambda _: f"# {changes['title']}", text[end:], count=1, flags=re.MULTILINE
        )
    metrics = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    base = changes["base_model"]
    if not base and not (isinstance(named, list) or is_hub_id(named or "")):  # one that somebody wrote there stays
        base = _public_base(metrics.get("base_model") or named, folder, repo_id)
    asked = {"license": changes["license"], "base_model": base if base and is_hub_id(base) else None}
    if any(value and value != card.data.get(name) for name, value in asked.items()):
        card = ModelCard(text, ignore_metadata_errors=True)
        for name, value in _given(asked).items():
            setattr(card.data, name, value)
        if asked["license"] not in (None, "other"):
            for name in ("license_name", "license_link"):  # of the one that was there
                card.data.pop(name, None)
        if asked["base_model"] and not card.data.get("base_model_relation"):
            is_adapter = (folder / "adapter_config.json").is_file()
            card.data["base_model_relation"] = "adapter" if is_adapter else "finetune"
        text = str(card)
    return text


def _given(changes: dict) -> dict:
    return {name: value for name, value in changes.items() if value}


def _adapter_config(folder: Path, repo_id: str, base_model: str | None) -> dict:
    values = read_json(folder / "adapter_config.json")
    base = base_model or _public_base(values.get("base_model_name_or_path"), folder, repo_id)
    return values | {"base_model_name_or_path": base or "a model without a name"}


def _public_base(base: str | None, folder: Path, repo_id: str) -> str | None:
    """A base model that lies beside the folder is published under the same owner; any other keeps its name."""
    facts = read_json(folder / "metrics.json") if (folder / "metrics.json").is_file() else {}
    was_folder = base == facts.get("base_model") and facts.get("base_is_folder", False)
    base = base_model_name(base, was_folder) if isinstance(base, str) and base else None
    owner = repo_id.split("/")[0]
    is_beside = base is not None and "/" not in base and (folder.resolve().parent / base).is_dir()
    return f"{owner}/{base}" if is_beside else base


def _on_the_hub(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> tuple[str | None, set[str]]:
    """The last commit of a branch and the paths it holds; none where there is no repository or no branch yet."""
    try:
        info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None, set()
    return info.sha, {file.rfilename for file in info.siblings}


def _upload(api: HfApi, uploads, removed, repo_id, repo_type, private, revision, message) -> dict:
    card = next(upload for upload in uploads if upload.path == "README.md")
    # The Hub's own check, before there is a repository that stays empty.
    RepoCard(card.read().decode("utf-8")).validate(repo_type)
    sdk = {"space_sdk": "gradio"} if repo_type == "space" else {}
    url = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True, **sdk)
    if revision and not revision.startswith("refs/pr/"):
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    # Not `upload_folder`, which may spread a folder over several commits: code and weights belong together.
    operations = [
        CommitOperationAdd(upload.path, upload.content if isinstance(upload.content, bytes) else str(upload.content))
        for upload in uploads
    ] + [CommitOperationDelete(path) for path in removed]
    message = message or f"Upload {repo_id.split('/')[1]}"
    try:
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type, revision=revision)
    except Exception as error:
        error.add_note("Make the same call again to go on: files that arrived whole are not sent again.")
        raise
    return {"url": str(url), "commit": commit.oid}


def _tag(api: HfApi, repo_id: str, repo_type: str, tag: str, commit: str) -> None:
    """Put `tag` on `commit`; a tag that marks another commit stays, because users pin it."""
    marked = {ref.name: ref.target_commit for ref in api.list_repo_refs(repo_id, repo_type=repo_type).tags}
    if tag not in marked:
        api.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type)
    elif marked[tag] != commit:
        raise ValueError(
            f"`tag` {tag!r} marks commit {marked[tag][:8]} of {repo_id} already and was not moved; the upload stands "
            f"as {commit[:8]}. Choose another tag and publish again: nothing is sent twice."
        )


def _walk(folder: Path, repo_type: str) -> list[Path]:
    """Every file and link under a folder, without what machines leave there, at any depth, and what commands leave
    beside what they make."""
    left_out = OF_BITEXT if repo_type == "dataset" else LEFT_OUT
    files, waiting = [], [path for path in folder.iterdir() if not any(map(path.match, left_out))]
    while waiting:
        path = waiting.pop()
        if path.name not in KEPT and any(map(path.match, NOWHERE)):
            continue
        if path.is_dir() and not path.is_symlink():
            waiting += path.iterdir()
        else:
            files.append(path)
    return files


def _check_links(folder: Path, files: list[Path]) -> None:
    """Model code may be linked to; another link may lead to what nobody means to show."""
    problems = []
    for path in files:
        name = path.relative_to(folder).as_posix()
        if not path.exists():
            problems.append(f"{name} is a broken link")
        elif not path.is_file() or (path.is_symlink() and path.resolve().suffix != ".py"):
            problems.append(f"{name} is a link, but only code (*.py) is linked to; put the file itself in its place")
    if problems:
        raise ValueError("Nothing was uploaded: " + "; ".join(problems) + ".")


def _parquet_files(folder: Path, scratch: Path) -> list[Upload]:
    from datasets import DatasetDict, load_from_disk

    saved = load_from_disk(str(folder))
    uploads = []
    for split, dataset in (saved if isinstance(saved, DatasetDict) else {"train": saved}).items():
        files = max(1, -(-len(dataset) // ROWS_A_FILE))
        for n in range(files):
            file = scratch / f"{split}-{n}.parquet"
            dataset.shard(files, n, contiguous=True).to_parquet(file)
            uploads.append(Upload(f"data/{split}-{n:05d}-of-{files:05d}.parquet", file))
    return uploads
