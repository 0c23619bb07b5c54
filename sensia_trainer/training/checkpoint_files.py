"""The checkpoints in a run's folder: written whole or not at all, and told from damaged ones by their manifest."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..utils.files import file_fingerprint, flush, read_json, write_json


logger = logging.get_logger(__name__)

MANIFEST_FILE = "manifest.json"


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, or cannot be resumed from; the message names it and what is left."""


@contextmanager
def written_whole(folder: Path, *, writer: bool = True, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Gives a temporary folder to write into, which becomes `folder` when the block ends without an error.

    Args:
        folder (`Path`): The folder to appear, whole; one of that name is replaced.
        writer (`bool`, *optional*, defaults to `True`): Whether this process makes, renames and removes folders.
        wait (`Callable`, *optional*): Waits for all processes.

    Raises:
        `CheckpointError`: when the block or the file system fails; then nothing is left of the temporary folder.
    """
    temporary = folder.with_name(f"writing-{folder.name}")
    if writer:
        for stale in folder.parent.glob("writing-*"):  # of a run that was killed while writing
            shutil.rmtree(stale, ignore_errors=True)
    try:
        if writer:
            temporary.mkdir(parents=True)
        wait()
        yield temporary
        wait()
        if writer:
            for path in [*temporary.rglob("*"), temporary]:
                flush(path)
            _replace(folder, temporary)
            flush(folder.parent)
        wait()
    except Exception as error:
        if writer:
            shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(_failure(folder, error)) from error


def checkpoints(folder) -> list[Path]:
    """The checkpoints in a run's folder, oldest step first."""
    found = [path for path in Path(folder).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir()]
    steps = {path: path.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-") for path in found}
    return sorted((path for path in found if steps[path].isdecimal()), key=lambda path: int(steps[path]))


def write_manifest(folder: Path, **facts) -> None:
    """`manifest.json`: size and SHA-256 of every file in `folder`, and `facts`."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_fingerprint(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST_FILE
    }
    write_json(folder / MANIFEST_FILE, facts | {"files": files})


def faults(folder: Path) -> list[str]:
    """What distinguishes a checkpoint from its manifest, a phrase for each file; empty for one that is whole."""
    try:
        written = read_json(folder / MANIFEST_FILE)
        files = {name: (facts["bytes"], facts["sha256"]) for name, facts in written["files"].items()}
        written["processes"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{MANIFEST_FILE} is missing or damaged"]
    found = []
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
        elif path.stat().st_size != size:
            found.append(f"{name} has {path.stat().st_size:,} of {size:,} bytes")
        elif file_fingerprint(path) != digest:
            found.append(f"{name} has other content than was written")
    return found


def check_checkpoint(folder, processes: int | None = None) -> None:
    """
    Refuses a checkpoint that cannot be resumed from as it was written.

    Args:
        folder (`str` or `Path`): The checkpoint.
        processes (`int`, *optional*): How many processes are to resume; random states and batches are each one's own.

    Raises:
        `CheckpointError`: names what is damaged, or the two numbers of processes.
    """
    folder = Path(folder)
    found = faults(folder) if folder.is_dir() else ["there is no such folder"]
    if found:
        raise CheckpointError(f"{folder} is not whole: {'; '.join(found[:4])}. Resume from another checkpoint.")
    _check_processes(folder, processes)


def newest_whole_checkpoint(folder, processes: int | None = None) -> Path:
    """
    The newest checkpoint in a run's folder whose files are those of its manifest. Newer ones that are not are renamed
    to `damaged-checkpoint-N`, with a warning that says what is wrong with them.

    Args:
        folder (`str` or `Path`): The run's folder.
        processes (`int`, *optional*): See [`check_checkpoint`].

    Raises:
        `CheckpointError`: if none is whole, or the newest whole one is of another number of processes.
    """
    damaged, whole = {}, None
    for path in reversed(checkpoints(folder)):
        found = faults(path)
        if not found:
            whole = path
            break
        damaged[path] = found
    problems = "; ".join(f"{path.name}: {', '.join(found[:4])}" for path, found in damaged.items())
    if whole is None:
        raise CheckpointError(
            f"{folder} holds no checkpoint that is whole ({problems or 'none at all'}). Restore one, or remove them "
            "to train from the beginning."
        )
    _check_processes(whole, processes)
    if problems:
        logger.warning(f"Damaged checkpoints in {folder} are set aside ({problems}); going on from {whole.name}.")
    for path in damaged:
        aside = path.with_name(f"damaged-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
    return whole


def _check_processes(checkpoint: Path, processes: int | None) -> None:
    wrote = read_json(checkpoint / MANIFEST_FILE)["processes"]
    if processes is not None and processes != wrote:
        raise CheckpointError(
            f"{checkpoint} was written by {wrote} process(es); {processes} would go on from it with other batches. "
            f"Start {wrote}, or train from the beginning in another `output_dir`."
        )


def _replace(folder: Path, temporary: Path) -> None:
    if folder.exists():
        replaced = folder.with_name(f"writing-replaced-{folder.name}")
        folder.rename(replaced)
        temporary.rename(folder)
        shutil.rmtree(replaced, ignore_errors=True)
    else:
        temporary.rename(folder)


def _failure(folder: Path, error: Exception) -> str:
    last = checkpoints(folder.parent)[-1:]
    free = shutil.disk_usage(folder.parent).free / 1e6 if folder.parent.is_dir() else 0.0
    return (
        f"{folder} could not be written ({type(error).__name__}: {error}); {free:,.0f} MB are free there. What was "
        f"written of it is removed; the last complete checkpoint is {last[0] if last else None}. Free space or lower "
        "`save_total_limit`, then start the same command again: it resumes from that checkpoint."
    )
