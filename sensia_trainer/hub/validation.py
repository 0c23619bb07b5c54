"""What is refused before anything goes to the Hub: incomplete cards, pickles, secrets, folders of this machine, code
that is not whole, and weights that are damaged or do not fill the model."""

import json
import os
import pickletools
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch
import yaml
from huggingface_hub import DatasetCard, ModelCard, SpaceCard
from safetensors import SafetensorError, safe_open
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.dynamic_module_utils import get_relative_imports

from ..languages import language
from ..utils.files import DELTA_FILE, DELTA_WEIGHTS
from ..utils.secrets import find_secrets
from .licences import UNKNOWN
from .model_card import is_hub_id


MODEL_FIELDS = ("language", "license", "library_name", "pipeline_tag", "tags")
DATASET_FIELDS = ("language", "license", "pretty_name", "task_categories")
SPACE_FIELDS = ("title", "license", "sdk", "sdk_version", "app_file")
MODEL_SECTIONS = (
    "Use",
    "Intended use",
    "Training data",
    "Training procedure",
    "Evaluation",
    "Limitations and risks",
    "Citation",
)
PICKLE_SUFFIXES = {".bin", ".ckpt", ".dill", ".h5", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"}
PACKED_SUFFIXES = {".bz2", ".gz", ".tar", ".tgz", ".xz", ".zip", ".zst"}
CALLS = {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD"}  # what makes a pickle run
TEXT_SUFFIXES = {".json", ".md", ".svg", ".txt", ".yaml", ".yml", ".py", ".toml"}
BLOCK = 2**24  # bytes of a file that are looked through at once
OVERLAP = 2**12


def validate_card(text: str, repo_type: str = "model", to_publish: bool = False) -> None:
    """Refuse a card that lacks what the Hub or a reader needs.

    Whether the Hub knows a licence or a task, it says itself before anything is uploaded (`RepoCard.validate`).

    Args:
        text: The whole README.md, front matter included.
        repo_type: "model", "dataset" or "space".
        to_publish (`bool`, *optional*, defaults to `False`): Refuse weights of an unknown licence as well.

    Raises:
        `ValueError`: names every missing metadata field and section, unknown languages, a base model that is not a Hub
            id, a licence of kind "other" without name and link, and placeholder text; or says that the front matter
            is not YAML.
    """
    try:
        card = {"model": ModelCard, "dataset": DatasetCard, "space": SpaceCard}[repo_type](text)
    except yaml.YAMLError as error:
        raise ValueError(f"The front matter of the card is not YAML: {' '.join(str(error).split())}.") from error
    data = card.data.to_dict()
    required = {"model": MODEL_FIELDS, "dataset": DATASET_FIELDS, "space": SPACE_FIELDS}[repo_type]
    bases = data.get("base_model") or []
    if bases:
        required += ("base_model_relation",)
    if data.get("license") == "other":
        required += ("license_name", "license_link")
    problems = [f"metadata field `{name}` is missing" for name in required if not data.get(name)]
    if repo_type == "model":
        headings = set(re.findall(r"^## (.+?)\s*$", card.text, flags=re.MULTILINE))
        problems += [f"section `## {name}` is missing" for name in MODEL_SECTIONS if name not in headings]
    elif not card.text.strip():
        problems.append("the body is empty")
    codes = data.get("language") or []
    for code in [codes] if isinstance(codes, str) else codes:
        if code not in ("multilingual", "code"):
            try:
                language(str(code))
                if not re.fullmatch("[a-z]{2,3}", str(code)):
                    problems.append(
                        f"metadata field `language` is {code!r}, but the Hub takes codes of two or three letters; "
                        "others are for `language_bcp47`"
                    )
            except ValueError as error:
                problems.append(f"metadata field `language`: {error}")
    for name in ("license", "pipeline_tag"):
        given = data.get(name) or []
        for term in [given] if isinstance(given, str) else given:
            if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", str(term)):
                problems.append(f"metadata field `{name}` is {term!r}, but identifiers of the Hub are like apache-2.0")
    for base in [bases] if isinstance(bases, str) else bases:
        if not is_hub_id(base):
            problems.append(
                f"metadata field `base_model` is {base!r}, but must be the id of a Hub repository (owner/name): give "
                "it by `--base-model owner/name`, or take the field out"
            )
    if to_publish and repo_type == "model" and data.get("license") == UNKNOWN:
        problems.append(
            "the licence of the weights is unknown, because none follows from what was said of the text and the base "
            "model: name the text's when training (`--licence`), or, if you may, theirs when publishing (`--license "
            "cc-by-4.0`, or that of the base model where it asks for its own)"
        )
    placeholders = re.findall(r"more information needed|\bTODO\b|\[needs more\b", card.text, flags=re.IGNORECASE)
    for placeholder in dict.fromkeys(placeholders):
        problems.append(f"the body holds the placeholder {placeholder!r}")
    if problems:
        raise ValueError("The card is not complete: " + "; ".join(problems) + ".")


def check_uploads(uploads, repo_type: str) -> None:
    """Refuse what must not be published.

    Args:
        uploads: Files of a repository ([`~sensia_trainer.hub.publishing.Upload`]).
        repo_type: "model", "dataset" or "space".

    Raises:
        `ValueError`: names every problem with its file and line; secrets are not repeated.
    """
    contents, problems, damaged = {upload.path: upload for upload in uploads}, [], []
    for upload in tqdm(uploads, desc="checking", leave=False, disable=None):
        if upload.path.endswith(".safetensors"):
            damaged += _damage(upload)
        elif _is_pickle(upload):
            problems.append(f"{upload.path} is a pickle, which runs code when it is loaded; save safetensors or JSON")
        problems += [f"{upload.path}, line {line}, holds {kind}" for line, kind in _secrets(upload)]
        problems += [f"{upload.path}, line {line}, names a folder of a machine" for line in _folders(upload)]
    problems += damaged
    if repo_type == "model":
        problems += _model_problems(contents, is_readable=not damaged)
    if "README.md" not in contents:
        problems.append("there is no card (README.md)")
    else:
        text = contents["README.md"].read().decode("utf-8", "replace")
        try:
            validate_card(text, repo_type, to_publish=True)
        except ValueError as error:
            problems.append(str(error).rstrip("."))
    if problems:
        raise ValueError("Nothing was uploaded: " + "; ".join(problems) + ".")


def _blocks(upload) -> Iterator[tuple[int, bytes]]:
    """A file in overlapping blocks, each with the number of lines before it."""
    with upload.open() as file:
        lines, block = 0, file.read(BLOCK)
        while block:
            yield lines, block
            rest = file.read(BLOCK - OVERLAP)
            if not rest:
                return
            lines += block[:-OVERLAP].count(b"\n")
            block = block[-OVERLAP:] + rest


def _secrets(upload) -> list[tuple[int, str]]:
    """Lines and kinds of secrets; of weights and of tables, those in metadata and in texts."""
    if upload.path.endswith(".safetensors"):
        with upload.open() as file:
            length = int.from_bytes(file.read(8), "little")
            return find_secrets(file.read(min(length, BLOCK)))
    if upload.path.endswith(".parquet"):
        return [(1, kind) for text in _parquet_texts(upload) for _, kind in find_secrets(text)]
    with upload.open() as file:
        parts = list(_members(file)) if zipfile.is_zipfile(file) else []
    if parts:
        return [(1, kind) for _, part in parts for _, kind in find_secrets(part)]
    found = {(lines + line, kind) for lines, block in _blocks(upload) for line, kind in find_secrets(block)}
    return sorted(found)


def _parquet_texts(upload) -> Iterator[bytes]:
    """The metadata of a table, then its columns of text: all values of a batch in one buffer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with upload.open() as source, pq.ParquetFile(source) as file:
        yield b"\n".join(part for pair in (file.schema_arrow.metadata or {}).items() for part in pair)
        for batch in file.iter_batches(65536):
            arrays = list(batch.columns)
            while arrays:
                array = arrays.pop()
                kind = array.type
                if pa.types.is_dictionary(kind):
                    arrays.append(array.dictionary)
                elif pa.types.is_struct(kind):
                    arrays += array.flatten()
                elif pa.types.is_map(kind):
                    arrays += [array.keys, array.items]
                elif pa.types.is_nested(kind):  # lists of every sort
                    arrays.append(array.flatten())
                elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
                    yield "\n".join(filter(None, array.to_pylist())).encode()
                elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
                    yield b"\n".join(filter(None, array.to_pylist()))


def _folders(upload) -> list[int]:
    """Lines of a text that name a home folder, or one of this machine."""
    if Path(upload.path).suffix not in TEXT_SUFFIXES:
        return []
    here = {os.getcwd(), str(Path.home()), tempfile.gettempdir(), os.environ.get("SENSIA_DATA") or ""}
    here = [re.escape(folder.rstrip("/")) for folder in here if len(folder.rstrip("/")) > 1]
    pattern = "|".join([*here, r"/(?:home|Users)/[\w.-]+", "/root"])
    pattern = re.compile(rf"(?<![\w./-])(?:{pattern})/[\w.-]|\b[A-Z]:\\+Users\\+\w".encode())
    return sorted({lines + block.count(b"\n", 0, found.start()) + 1 for lines, block in _blocks(upload)
                   for found in pattern.finditer(block)})  # fmt: skip


def _is_pickle(upload) -> bool:
    """Told by the suffix, and by content: pickles of every protocol, also packed or in an archive."""
    if _is_named_as_pickle(upload.path):
        return True
    with upload.open() as file:
        if zipfile.is_zipfile(file):
            return any(_is_named_as_pickle(name) or _runs(part) for name, part in _members(file))
        file.seek(0)
        return _runs(file.read(BLOCK))


def _members(file) -> Iterator[tuple[str, bytes]]:
    """Names and beginnings of the files in an archive."""
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            with archive.open(name) as member:
                yield name, member.read(BLOCK)


def _is_named_as_pickle(path: str) -> bool:
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    while suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in PICKLE_SUFFIXES


def _runs(start: bytes) -> bool:
    """Whether a file that begins so is a pickle: by its first bytes (protocols 2 to 5), or because it reads as one to
    the end and calls something (protocols 0 and 1, which are text)."""
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    try:
        return any(opcode.name in CALLS for opcode, _, _ in list(pickletools.genops(start)))
    except Exception:  # whatever is wrong with it, it is not a pickle
        return False


def _damage(upload) -> list[str]:
    """What is wrong with a weight file: that it cannot be read, or values that are not finite."""
    try:
        with safe_open(upload.content, framework="pt") as tensors:
            names = list(tensors.keys())
            bad = [name for name in tqdm(names, desc=upload.path, leave=False, disable=None)
                   if not torch.isfinite(tensors.get_tensor(name).float()).all()]  # fmt: skip
    except SafetensorError as error:
        return [f"{upload.path} is damaged: {error}"]
    more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
    return [f"{upload.path} holds NaN or infinity in {bad[0]!r}{more}"] if bad else []


def _model_problems(contents: dict, is_readable: bool) -> list[str]:
    """Weights, configuration and code that are missing, and weights that do not fill the configuration."""
    problems = []
    if not any(path.endswith(".safetensors") for path in contents):
        problems.append("there are no weights (*.safetensors)")
    if "config.json" not in contents and "adapter_config.json" not in contents:
        problems.append("there is neither config.json nor adapter_config.json")
    if "adapter_config.json" in contents:
        base = json.loads(contents["adapter_config.json"].read())["base_model_name_or_path"]
        if not is_hub_id(base):
            problems.append(
                f"adapter_config.json names the base model {base!r}, which is not the id of a Hub repository "
                "(owner/name): give it by `--base-model owner/name`, or publish with the base model's folder beside "
                "this one"
            )
    missing_code = _missing_code(contents)
    problems += missing_code
    indexed = {
        path: sorted(set(json.loads(upload.read())["weight_map"].values()))
        for path, upload in contents.items()
        if path.endswith(".safetensors.index.json")
    }
    shards = indexed.get("model.safetensors.index.json", ["model.safetensors"])
    wanted = {name for names in indexed.values() for name in names}
    if DELTA_FILE in contents and not indexed:
        wanted.add(DELTA_WEIGHTS)
    problems += [f"the weight file {name} is missing" for name in sorted(wanted - contents.keys())]
    if "config.json" in contents and is_readable and not missing_code and all(name in contents for name in shards):
        problems += _unfilled(json.loads(contents["config.json"].read()), [contents[name] for name in shards])
    return problems


def _missing_code(contents: dict) -> list[str]:
    """Code files that config.json, modules.json or another code file names, and that are not there."""
    wanted = {}
    if "config.json" in contents:
        auto_map = json.loads(contents["config.json"].read()).get("auto_map") or {}
        # "module.Class" is a file of this repository, "owner/name--module.Class" of another.
        targets = [target for value in auto_map.values() for target in ([value] if isinstance(value, str) else value)]
        wanted |= {f"{t.split('.')[0]}.py": "config.json" for t in targets if t and "--" not in t}
    if "modules.json" in contents:
        types = [module["type"] for module in json.loads(contents["modules.json"].read())]
        own = [name for name in types if not name.startswith("sentence_transformers.")]
        wanted |= {f"{name.split('.')[0]}.py": "modules.json" for name in own}
    problems, waiting = [], list(wanted.items())
    seen = set(wanted)
    while waiting:
        name, by = waiting.pop()
        if name not in contents:
            problems.append(f"{by} names the code file {name}, which is missing")
            continue
        with tempfile.NamedTemporaryFile("wb", suffix=".py") as copy:
            copy.write(contents[name].read())
            copy.flush()
            imported = [f"{module}.py" for module in get_relative_imports(copy.name)]
        waiting += [(module, name) for module in imported if module not in seen]
        seen |= set(imported)
    return problems


def _unfilled(config: dict, weights: list) -> list[str]:
    """Weights that a model of this configuration has and the files have not, or in another shape."""
    import modeling_backpack  # noqa: F401 (registers the model with the Auto classes)

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    except (ValueError, KeyError, ImportError):  # a model that only its own code knows
        return []
    found = {}
    for upload in weights:
        with safe_open(upload.content, framework="pt") as tensors:
            found |= {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys)
    missing = sorted(name for name in wanted.keys() - found.keys() if name not in tied)
    other = sorted(name for name in wanted.keys() & found.keys() if wanted[name] != found[name])
    problems = []
    if missing:
        problems.append(f"config.json asks for the weights {missing[0]!r}{_more(missing)}, which are missing")
    if other:
        shapes = f"{found[other[0]]} in the file and {wanted[other[0]]} by config.json"
        problems.append(f"the weight {other[0]!r}{_more(other)} has the shape {shapes}")
    return problems


def _more(names: list) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
