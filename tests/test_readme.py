"""README tells the truth: its app runs as written, its tables name what there is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from asyncline.settings import OpSettings
from asyncline.transports.rest.answer import STATUSES
from tests.serving import ROOT, serving

README = (ROOT / "README.md").read_text()


def test_the_app_and_its_curl_work_as_written(tmp_path: Path) -> None:
    app = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert app is not None
    assert "Ten lines" in README and len([line for line in app[1].splitlines() if line.strip()]) == 10
    (tmp_path / "app.py").write_text(app[1])
    line = re.search(r"^(curl .*score)\s+# (.*)$", README, re.MULTILINE)
    assert line is not None
    with serving("app:graph", cwd=tmp_path) as server:
        command = line[1].replace("http://127.0.0.1:8000", server.address)
        answer = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=20, check=True).stdout
    assert answer == line[2].strip()


def test_every_setting_of_an_op_and_every_code_is_in_a_table() -> None:
    for name in OpSettings.model_fields:
        assert f"| `{name}` |" in README
    for code in set(STATUSES) - {"product", "cancelled"}:
        assert f"`{code}`" in README
