"""The package description agrees with itself: pins, packages, licence, continuous integration."""

import ast
import configparser
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml


ROOT = Path(__file__).resolve().parents[1]


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


def test_every_package_is_listed(setup):
    listed = set(setup["options"]["packages"].split())
    found = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for package in ("modeling_backpack", "sensia_trainer")
        for file in (ROOT / package).rglob("__init__.py")
    }
    assert listed == found


def test_every_file_that_is_no_module_is_package_data(setup):
    packaged = {
        file
        for package, patterns in setup["options.package_data"].items()
        for pattern in patterns.split()
        for file in ROOT.joinpath(*package.split(".")).glob(pattern)
    }
    files = {f for package in ("modeling_backpack", "sensia_trainer") for f in (ROOT / package).rglob("*.*")}
    assert packaged == {f for f in files if f.is_file() and f.suffix not in (".py", ".pyc")}
    assert {"paper_table1.json", "adaptation.md"} <= {file.name for file in packaged}


@pytest.mark.slow
def test_a_wheel_holds_every_file_of_the_packages(tmp_path):
    """Built from a copy, so that nothing of an earlier build in the tree slips in."""
    source = tmp_path / "source"
    source.mkdir()
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("modeling_backpack", "sensia_trainer"):
        shutil.copytree(ROOT / name, source / name, ignore=ignore)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, str(tmp_path)], cwd=source, check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {f for name in ("modeling_backpack", "sensia_trainer") for f in (source / name).rglob("*") if f.is_file()}
    assert held == {file.relative_to(source).as_posix() for file in files}


def test_the_linter_is_the_pinned_one(pins):
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["tool"]["ruff"]["line-length"] == 119
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is fetched


def test_continuous_integration_calls_quality_and_test():
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    commands = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "quality", "test", "VENV=elsewhere", f"PYTHON={sys.executable}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for command in ("ruff check", "ruff format --check", "lint_model.py", "-c constraints.txt", "pytest -n 2"):
        assert command in commands
