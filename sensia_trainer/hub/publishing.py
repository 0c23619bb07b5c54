"""A folder becomes a repository on the Hub: checked first, then uploaded in one commit, tagged and collected."""

import io
import json
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard
from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm

from .model_card import base_model_name, is_hub_id, validate_card


# What a run leaves behind for its own resumption, and no repository needs.
# How `datasets` saves a dataset; the Hub gets Parquet files instead.
OF_DATASETS = ("*.arrow", "state.json", "dataset_info.json", "dataset_dict.json")
LEFT_OUT = ("__pycache__", "checkpoint-*", "runs", "settings.json", "before.json", ".*", "*.pyc", "*.lock")
KEPT = (".gitattributes", ".eval_results")

PICKLE_SUFFIXES = {".bin", ".ckpt", ".dill", ".h5", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
PACKED_SUFFIXES = {".bz2", ".gz", ".tar", ".tgz", ".xz", ".zip", ".zst"}

SECRETS = {
    "a Hugging Face token": rb"\bhf_[A-Za-z0-9]{30,}",
    "a GitHub token": rb"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": rb"\bglpat-[A-Za-z0-9_-]{20,}",
    "an AWS key": rb"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a Google key": rb"\bAIza[A-Za-z0-9_-]{35}",
    "an API key": rb"\bsk-[A-Za-z0-9_-]{32,}",
    "a Slack token": rb"\bxox[abprs]-[A-Za-z0-9-]{20,}",
    "a private key": rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a Weights & Biases key": rb"WANDB_API_KEY\W{1,4}[a-f0-9]{40}\b",
}
ANY_SECRET = re.compile(b"|".join(b"(" + pattern + b")" for pattern in SECRETS.values()))


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


def publish(
    folder,
    repo_id: str,
    *,
    repo_type: str = "model",
    private: bool = True,
    tag: str | None = None,
    collection: str | None = None,
    message: str | None = None,
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
        repo_type: "model" or "dataset".
        private: Visibility of a repository that is created; an existing one keeps its own.
        tag: Name of a revision tag to put on the commit, such as "v1.0".
        collection: Title of a collection of the same owner that is to list the repository; created if missing.
        message: The commit message.
        dry_run: Check and list only; nothing is sent.

    Returns:
        `repo_id`, `files` [[path, bytes], ...], `bytes`, `removed` (paths that the repository loses; None in a dry
        run without the Hub), `dry_run`; after an upload also `url`, `commit` and `changed` (was a commit made).

    Raises:
        ValueError: For a folder with pickles, secrets, links, missing model files, a base model that is not on the
            Hub or an incomplete card, a malformed `repo_id`, or a `tag` that marks another commit already.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo_id):
        raise ValueError(f"`repo_id` is {repo_id!r}, but must be 'owner/name'.")
    if repo_type not in ("model", "dataset"):
        raise ValueError(f"`repo_type` is {repo_type!r}, but must be 'model' or 'dataset'.")
    with tempfile.TemporaryDirectory() as scratch:
        uploads = collect(folder, repo_id, repo_type, Path(scratch))
        check(uploads, repo_type)
        try:
            before, present = _on_the_hub(repo_id, repo_type)
            gone = present - {upload.path for upload in uploads} - {".gitattributes"}
            removed = sorted(path for path in gone if not (Path(folder) / path).exists())
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
        commit = _upload(uploads, removed, repo_id, repo_type, private, tag, collection, message)
        return report | commit | {"changed": commit["commit"] != before}


def collect(folder, repo_id: str, repo_type: str, scratch: Path) -> list[Upload]:
    """The files of a folder as they will stand in the repository, sorted by path.

    The card's snippet is made to load `repo_id`, and a base model that lies beside the folder gets the same owner; so
    does the base model of an adapter, which would otherwise name a path of this machine. A dataset saved by
    `datasets.save_to_disk` becomes Parquet files (in `scratch`), which is what the Hub loads.

    Raises ValueError if `folder` is none, or holds links that are not followed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{str(folder)!r} is not a folder.")
    if repo_type == "dataset" and ((folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()):
        uploads = _parquet_files(folder, scratch)
        files = [path for path in _walk(folder) if not any(path.match(pattern) for pattern in OF_DATASETS)]
    else:
        uploads, files = [], _walk(folder)
    _check_links(folder, files)
    uploads += [Upload(path.relative_to(folder).as_posix(), path) for path in files]
    adapted = {"README.md": _with_repo_id, "adapter_config.json": _with_base_model}
    uploads = [adapted.get(upload.path, _as_it_is)(upload, folder, repo_id) for upload in uploads]
    return sorted(uploads, key=lambda upload: upload.path)


def check(uploads: list[Upload], repo_type: str) -> None:
    """Refuse what must not be published; raises ValueError that names every problem."""
    contents, problems = {upload.path: upload for upload in uploads}, []
    for upload in tqdm(uploads, desc="checking", leave=False, disable=None):
        if upload.path.endswith(".safetensors"):
            problems += [f"{upload.path} is damaged: {error}" for error in _damage(upload)]
        elif _is_pickle(upload):
            problems.append(f"{upload.path} is a pickle, which runs code when it is loaded; save safetensors or JSON")
        problems += [f"{upload.path}, line {line}, holds {kind}" for line, kind in _secrets(upload)]
    if repo_type == "model":
        problems += _missing_model_files(contents)
    if "README.md" not in contents:
        problems.append("there is no card (README.md)")
    else:
        try:
            validate_card(_text(contents["README.md"]), repo_type)
        except ValueError as error:
            problems.append(str(error).rstrip("."))
    if problems:
        raise ValueError("Nothing was uploaded: " + "; ".join(problems) + ".")


def _on_the_hub(repo_id: str, repo_type: str) -> tuple[str | None, set[str]]:
    """The last commit of a repository and the paths it holds; none where there is no repository yet."""
    try:
        info = HfApi().repo_info(repo_id, repo_type=repo_type)
    except RepositoryNotFoundError:
        return None, set()
    return info.sha, {file.rfilename for file in info.siblings}


def _upload(uploads, removed, repo_id, repo_type, private, tag, collection, message) -> dict:
    api = HfApi()
    card = next(upload for upload in uploads if upload.path == "README.md")
    RepoCard(_text(card)).validate(repo_type)  # the Hub's own check, before there is a repository that stays empty
    url = api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
    # Not `upload_folder`, which may spread a folder over several commits: code and weights belong together.
    operations = [
        CommitOperationAdd(upload.path, upload.content if isinstance(upload.content, bytes) else str(upload.content))
        for upload in uploads
    ] + [CommitOperationDelete(path) for path in removed]
    message = message or f"Upload {repo_id.split('/')[1]}"
    try:
        commit = api.create_commit(repo_id, operations, commit_message=message, repo_type=repo_type)
    except Exception as error:
        error.add_note("Make the same call again to go on: files that arrived whole are not sent again.")
        raise
    if tag:
        _tag(api, repo_id, repo_type, tag, commit.oid)
    if collection:
        owner = repo_id.split("/")[0]
        slug = api.create_collection(collection, namespace=owner, private=private, exists_ok=True).slug
        api.add_collection_item(slug, repo_id, item_type=repo_type, exists_ok=True)
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


def _walk(folder: Path) -> list[Path]:
    """Every file and link under a folder, without what `LEFT_OUT` names."""
    files = []
    for path in folder.iterdir():
        if path.name not in KEPT and any(path.match(pattern) for pattern in LEFT_OUT):
            continue
        files += _walk(path) if path.is_dir() and not path.is_symlink() else [path]
    return files


def _check_links(folder: Path, files: list[Path]) -> None:
    """Model code is linked to, so that there is one copy of it; another link may lead to what nobody means to show."""
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
    splits = saved if isinstance(saved, DatasetDict) else {"train": saved}
    uploads = []
    for split, dataset in splits.items():
        file = scratch / f"{split}.parquet"
        dataset.to_parquet(file)
        uploads.append(Upload(f"data/{split}-00000-of-00001.parquet", file))
    return uploads


def _as_it_is(upload: Upload, folder: Path, repo_id: str) -> Upload:
    return upload


def _with_repo_id(card: Upload, folder: Path, repo_id: str) -> Upload:
    text = card.content.read_text(encoding="utf-8")
    text = re.sub(r'^repo = ".*"$', f'repo = "{repo_id}"', text, count=1, flags=re.MULTILINE)
    base = re.search(r"^base_model: ([\w.-]+)$", text, flags=re.MULTILINE)
    if base:
        public = _public_base(base[1], folder, repo_id)
        text = text.replace(base[0], f"base_model: {public}", 1).replace(f'"{base[1]}"', f'"{public}"')
    return Upload(card.path, text.encode("utf-8"))


def _with_base_model(config: Upload, folder: Path, repo_id: str) -> Upload:
    values = json.loads(config.content.read_text(encoding="utf-8"))
    base = base_model_name(values.get("base_model_name_or_path") or "a model without a name")
    values["base_model_name_or_path"] = _public_base(base, folder, repo_id)
    return Upload(config.path, (json.dumps(values, indent=2, sort_keys=True) + "\n").encode("utf-8"))


def _public_base(base: str, folder: Path, repo_id: str) -> str:
    """A base model that lies beside the folder is published under the same owner; any other keeps its name."""
    owner = repo_id.split("/")[0]
    return f"{owner}/{base}" if "/" not in base and (folder.resolve().parent / base).is_dir() else base


def _text(upload: Upload) -> str:
    with upload.open() as file:
        return file.read().decode("utf-8")


def _damage(upload: Upload) -> list[str]:
    try:
        with safe_open(upload.content, framework="np"):
            return []
    except SafetensorError as error:
        return [str(error)]


def _is_pickle(upload: Upload) -> bool:
    """Told by the suffix, and by the first bytes: a pickle of protocol 2 to 5, or a zip archive that holds one."""
    if _is_named_as_pickle(upload.path):
        return True
    with upload.open() as file:
        start = file.read(2)
        if start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
            return True
        if not zipfile.is_zipfile(file):
            return False
        with zipfile.ZipFile(file) as archive:
            return any(_is_named_as_pickle(name) for name in archive.namelist())


def _is_named_as_pickle(path: str) -> bool:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    while suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in PICKLE_SUFFIXES


def _secrets(upload: Upload) -> list[tuple[int, str]]:
    """Line numbers and kinds of the secrets in a text file; the secrets themselves are not repeated."""
    kinds = list(SECRETS)
    with upload.open() as file:
        if b"\0" in file.read(8192):
            return []
        file.seek(0)
        found = [(line, match) for line, text in enumerate(file, 1) for match in ANY_SECRET.finditer(text)]
    return [(line, kinds[match.lastindex - 1]) for line, match in found]


def _missing_model_files(contents: dict[str, Upload]) -> list[str]:
    problems = []
    if not any(path.endswith(".safetensors") for path in contents):
        problems.append("there are no weights (*.safetensors)")
    if "config.json" not in contents and "adapter_config.json" not in contents:
        problems.append("there is neither config.json nor adapter_config.json")
    if "adapter_config.json" in contents:
        base = json.loads(_text(contents["adapter_config.json"]))["base_model_name_or_path"]
        if not is_hub_id(base):
            problems.append(
                f"adapter_config.json names the base model {base!r}, which is not the id of a Hub repository "
                "(owner/name): write it, or publish with the base model's folder beside this one"
            )
    if "config.json" in contents:
        auto_map = json.loads(_text(contents["config.json"])).get("auto_map") or {}
        # "module.Class" is a file of this repository, "owner/name--module.Class" of another.
        modules = {f"{target.split('.')[0]}.py" for target in auto_map.values() if "--" not in target}
        problems += [f"config.json names the code file {name}, which is missing" for name in modules - set(contents)]
    if "model.safetensors.index.json" in contents:
        shards = set(json.loads(_text(contents["model.safetensors.index.json"]))["weight_map"].values())
        problems += [f"the weight file {name} is missing" for name in sorted(shards - set(contents))]
    return problems
