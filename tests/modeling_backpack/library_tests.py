"""
Run transformers' own model tests on ours: `python -m tests.modeling_backpack.library_tests [pytest arguments]`.

The wheel of transformers has no tests; the source distribution of the same version has. It is fetched once into a
cache folder from the package index, with the one package that only these tests import, and nothing of it is part of
this repository.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import transformers


VERSION = transformers.__version__
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sensia" / f"transformers-{VERSION}"
REPOSITORY = Path(__file__).resolve().parents[2]
CASES = Path(__file__).with_name("library_cases.py")
# Modules that the test files import but the source distribution leaves out.
SHIMS = {
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/test_configuration_utils.py": "config_common_kwargs = {'return_dict': False, 'output_hidden_states': True, "
    "'dtype': 'float16', 'chunk_size_feed_forward': 5, 'architectures': ['BertModel'], 'id2label': {0: 'label'}, "
    "'label2id': {'label': '0'}, 'problem_type': 'regression'}\n",
}


class Unavailable(Exception):
    """The source distribution cannot be had here."""


def pip(command: str, requirement: str, *arguments: str):
    """Run pip for one package without its dependencies; `Unavailable` when it fails."""
    options = ["--disable-pip-version-check", "--quiet", "--no-deps", *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, requirement, *options], capture_output=True, text=True, timeout=240
    )
    if done.returncode:
        raise Unavailable(f"pip cannot {command} {requirement}: {done.stderr.strip()[-300:]}")


def prepare() -> Path:
    """
    The folder with the package `library`, transformers' test files of the installed version.

    Raises:
        `Unavailable`: when the source distribution is neither cached nor served by the package index.
    """
    package = CACHE / "library"
    if (package / "test_modeling_common.py").exists():
        return CACHE
    CACHE.mkdir(parents=True, exist_ok=True)
    pip("install", "parameterized", "--target", str(CACHE), "--upgrade")
    source_only = ["--no-binary", "transformers", "--no-build-isolation"]
    pip("download", f"transformers=={VERSION}", *source_only, "--dest", str(CACHE))
    archive_path = next(CACHE.glob("transformers-*.tar.gz"))
    for name, text in SHIMS.items():
        file = package / name
        file.parent.mkdir(parents=True, exist_ok=True)
        (file.parent / "__init__.py").touch()
        file.write_text(text)
    (package / "__init__.py").touch()
    # Some tests read the library's source where a checkout would have it.
    source = CACHE / "src" / "transformers"
    source.parent.mkdir(exist_ok=True)
    if not source.exists():
        source.symlink_to(Path(transformers.__file__).parent, target_is_directory=True)
    with tarfile.open(archive_path) as archive:
        for member in archive.getmembers():
            parts = Path(member.name).parts
            if len(parts) == 3 and parts[1] == "tests" and member.isfile():
                # The file that says the package is whole is written last and at once.
                temporary = package / f"{parts[2]}.part"
                temporary.write_bytes(archive.extractfile(member).read())
                temporary.replace(package / parts[2])
    archive_path.unlink()
    return CACHE


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Run the cases; `arguments` go to pytest."""
    folder = prepare()
    paths = [str(folder), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", "-c", os.devnull]
    command += ["--rootdir", str(folder), str(CASES), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


if __name__ == "__main__":
    completed = run(*sys.argv[1:])
    print(completed.stdout[-20000:], completed.stderr[-5000:])
    sys.exit(completed.returncode)
