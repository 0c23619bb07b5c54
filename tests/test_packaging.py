"""The package description agrees with itself: pins, packages, licence, continuous integration."""

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from functools import partial
from pathlib import Path

import pytest
import yaml
from setuptools import find_packages

import sensia_trainer


ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("modeling_backpack", "sensia_trainer")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def setup() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_every_named_distribution_is_pinned(setup, pins):
    extras = "\n".join(setup["options.extras_require"].values())
    requirements = (setup["options"]["install_requires"] + extras).split()
    names = {canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements} - {"sensia"}
    assert {"torch", "transformers", "django", "pytest", "simalign"} <= names
    assert not names - set(pins)


def imports(tree: ast.AST, everywhere: bool) -> set[str]:
    """Top-level names of the modules a file imports when it is imported, or `everywhere` in it."""
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


# Imported by its command alone, which says what to install.
WITH_AN_EXTRA = {"sensia_trainer/explorer/page.py": {"gradio"}}


@pytest.mark.parametrize("everywhere", [False, True], ids=["at the top", "anywhere"])
def test_every_import_of_the_packages_is_required(setup, everywhere):
    requirements = setup["options"]["install_requires"]
    if everywhere:  # what is imported only where it is used may come with an extra
        requirements += "\n".join(setup["options.extras_require"].values())
    distributions = {"yaml": "pyyaml", "lm_eval": "lm-eval"}
    required = {canonical(re.match(r"[\w.-]+", requirement)[0]) for requirement in requirements.split()}
    # spaCy is used where a user has installed it, and not required.
    own = {"modeling_backpack", "sensia_trainer", "spacy"} | set(sys.stdlib_module_names)
    for package in ("modeling_backpack", "sensia_trainer"):
        for file in (ROOT / package).rglob("*.py"):
            found = imports(ast.parse(file.read_text(encoding="utf-8")), everywhere) - own
            found -= WITH_AN_EXTRA.get(file.relative_to(ROOT).as_posix(), set()) if not everywhere else set()
            missing = {distributions.get(name, canonical(name)) for name in found} - required
            assert not missing, f"{file.relative_to(ROOT)} imports {missing}"


def test_exact_requirements_agree_with_the_pins(setup, pins):
    extras = "\n".join(setup["options.extras_require"].values())
    exact = re.findall(r"^([\w.-]+)==(\S+)$", extras, flags=re.MULTILINE)
    assert exact and all(pins[canonical(name)] == version for name, version in exact)


def test_lower_bounds_are_the_oldest_versions_tried(setup):
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    oldest = dict(line.split("==") for line in lines if not line.startswith("#"))
    requirements = setup["options"]["install_requires"].split() + setup["options.extras_require"]["peft"].split()
    bounds = dict(re.match(r"([\w-]+)>=([\d.]+)", requirement).groups() for requirement in requirements)
    assert bounds == {name: re.sub(r"(\.0)+$", "", version) for name, version in oldest.items()}


def test_pins_have_no_local_versions(pins):
    assert pins["torch"] == "2.13.0"
    assert not [name for name, version in pins.items() if "+" in version]


def files_of(folder, package):
    """All files of a package, also those in linked folders, without what Python leaves there."""
    names = (Path(parent, name) for parent, _, names in os.walk(folder / package, followlinks=True) for name in names)
    return {name for name in names if "__pycache__" not in name.parts}


def test_every_package_is_found():
    found = set(find_packages(str(ROOT), include=["modeling_backpack*", "sensia_trainer*"]))
    folders = {file.parent for package in PACKAGES for file in files_of(ROOT, package) if file.suffix == ".py"}
    folders = {folder for folder in folders if "models" not in folder.parts}  # the code of a model is its own
    assert found == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_every_file_that_is_not_a_module_is_package_data(setup):
    packaged = {
        file
        for package, patterns in setup["options.package_data"].items()
        for pattern in patterns.split()
        for file in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    files = {file for package in PACKAGES for file in files_of(ROOT, package)}
    assert packaged == {file for file in files if file.suffix != ".py" or "models" in file.parts}
    assert {"paper_table1.json", "adaptation.md", "py.typed", "model.safetensors"} <= {file.name for file in packaged}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that nothing of an earlier build in the tree slips in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "model_cards"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), symlinks=True)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_packages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert b"sensia = sensia_trainer.cli:main" in archive.read(entry_points)
    files = {file for package in PACKAGES for file in files_of(ROOT, package)}
    assert held == {file.relative_to(ROOT).as_posix() for file in files}
    assert wheel.stat().st_size < 10e6


@pytest.mark.slow
def test_a_wheel_is_all_that_the_quickstart_needs(wheel, tmp_path):
    """Installed beside nothing of the repository, called from another folder: from `sensia` to a model folder."""
    pytest.importorskip("django")
    site, here = tmp_path / "site", tmp_path / "here"
    here.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}
    run = partial(subprocess.run, cwd=here, env=environment, capture_output=True, text=True)
    where = run([sys.executable, "-c", "import sensia_trainer, modeling_backpack; print(sensia_trainer.__file__)"])
    assert Path(where.stdout.strip()).is_relative_to(site)
    assert run([str(site / "bin" / "sensia"), "--version"]).stdout.strip() == f"sensia {sensia_trainer.__version__}"
    short = "--max_steps 3 --per_device_train_batch_size 8 --held_out_pairs 8 --eval_strategy no"
    done = run([str(site / "bin" / "sensia"), "adapt", "quickstart", *short.split()])
    assert done.returncode == 0, done.stderr
    folder = here / "outputs" / "quickstart"
    assert {"README.md", "metrics.json", "model.safetensors", "modeling_backpack.py"} <= {
        f.name for f in folder.iterdir()
    }
    assert json.loads((folder / "metrics.json").read_text())["base_model"] == "backpack-micro-en"


def test_the_linter_is_the_pinned_one(pins):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["tool"]["ruff"]["line-length"] == 119
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is fetched


def test_continuous_integration_calls_quality_and_tests():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    calls = re.findall(r"^make ([^>\n]+)", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)
    called = [word for call in calls for word in call.split() if not word.startswith("--")]
    assert called[0] == ".venv/.installed-test"  # torch, before what is installed beside the tests
    targets = [word for word in called if not word.startswith(".venv")]
    assert targets == ["quality", "test", "docs", "test-versions"]
    commands = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", *targets, "VENV=elsewhere", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for command in ("ruff check", "ruff format --check", "mypy", "lint_model.py", "-c constraints.txt", "pytest -n 2"):
        assert command in commands
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["everything"]["steps"]
    assert steps[-1] == {"run": ".ci/run"}
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"]) for step in steps[:-1])


def test_the_type_checker_looks_at_the_pure_rooms():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    rooms = {"schedule.py", "representations.py", "losses.py", "utils", "vocabulary"}
    assert {f"sensia_trainer/{room}" for room in rooms} <= set(settings["files"])
    assert all((ROOT / file).exists() for file in settings["files"])


def test_the_ground_floor_imports_itself_alone_and_commands_are_imported_by_nobody():
    package = ROOT / "sensia_trainer"

    def rooms_of(file):
        """The rooms of the package that a file imports from, wherever in it."""
        place = file.relative_to(package).parts
        found = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                above = (*place[: len(place) - node.level], *(node.module or "").split("."))
                found |= {above[0]} if above[0] else {alias.name for alias in node.names}
        return found

    ground = {"languages", "schedule", "utils"}
    for file in [package / "languages.py", package / "schedule.py", *(package / "utils").rglob("*.py")]:
        assert rooms_of(file) <= ground, file
    top = {"commands", "cli"}
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0].removesuffix(".py")
        assert room in {*top, "__main__"} or not rooms_of(file) & top, file
