"""Run the transformers model linter over the model package, without the rules that a package of its own cannot keep.

Waivers for a single line stand in the code, as `# trf-ignore: TRF000`; here are those that hold everywhere.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import mlinter


WAIVED = {
    # @auto_docstring knows the models inside transformers only; outside it renders "configuration of a None".
    "TRF057",
}


def main() -> int:
    rules = (Path(mlinter.__file__).parent / "rules.toml").read_text(encoding="utf-8")
    for rule in WAIVED:
        pattern = rf"(?s)(\[rules\.{rule}\]\n(?:(?!\n\[).)*?default_enabled = )true"
        rules, count = re.subn(pattern, r"\1false", rules)
        if count != 1:
            raise SystemExit(f"mlinter has no enabled rule {rule}: take it off the list of waivers.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.toml"
        path.write_text(rules, encoding="utf-8")
        command = [sys.executable, "-m", "mlinter", "modeling_backpack", "--no-cache", "--no-progress"]
        return subprocess.run([*command, "--rules-toml", str(path)]).returncode


if __name__ == "__main__":
    sys.exit(main())
