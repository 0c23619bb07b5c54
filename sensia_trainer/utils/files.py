"""Files of a run: JSON written whole or not at all, without the folders of the machine."""

import json
import os
from dataclasses import asdict, is_dataclass
from pathlib import Path


def plain(value):
    """`value` as JSON holds it: dataclasses and mappings as dicts, enumerations by value, the rest as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if hasattr(value, "value") else value
    return str(value)


def write_json(path, content):
    """Write `content` as JSON, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(plain(content), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def portable(content):
    """`content`, any JSON value, without the folders of a machine: the data folder by its variable, files by name."""
    data, here = os.environ.get("SENSIA_DATA"), os.getcwd()

    def shorten(value):
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        if isinstance(value, list):
            return [shorten(item) for item in value]
        if not isinstance(value, str):
            return value
        if data:
            value = value.replace(str(Path(data)), "${SENSIA_DATA}")
        value = value.replace(here + os.sep, "")
        return " ".join(Path(word).name if os.path.isabs(word) else word for word in value.split(" "))

    return shorten(content)
