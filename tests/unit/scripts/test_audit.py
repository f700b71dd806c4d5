"""The audit of the pins, with another program in the place of pip-audit."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

# Answers a line of the file `known` for each pin that it names, and skips the others; says nothing where there is none.
PROGRAM = """
import json, sys
from pathlib import Path
known = json.loads(Path({known!r}).read_text())
if known is None:
    sys.exit("ConnectionError: no route to the index")
path = next(argument for argument in sys.argv if argument.startswith("--requirement=")).partition("=")[2]
pins = [line.split("==") for line in Path(path).read_text().splitlines()]
assert len({{name for name, _ in pins}}) == len(pins), "pip-audit takes no name twice"
answer = []
for name, version in pins:
    flaws = known.get(name + "==" + version)
    more = {{"skip_reason": "not found"}} if flaws is None else {{"version": version, "vulns": flaws}}
    answer.append({{"name": name, **more}})
print(json.dumps({{"dependencies": answer, "fixes": []}}))
sys.exit(any("vulns" in one and one["vulns"] for one in answer))
"""
CANARY = {audit.CANARY: [{"id": "PYSEC-1", "fix_versions": ["3.1"]}]}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the audit of these pins with an index that knows this; the exit code and the printed lines."""

    def start(known: Any, constraints: str, image: str = "") -> tuple[int, list[str]]:
        (tmp_path / "known").write_text(json.dumps(known))
        (tmp_path / "program.py").write_text(PROGRAM.format(known=str(tmp_path / "known")))
        (tmp_path / "images" / "torch").mkdir(parents=True, exist_ok=True)
        (tmp_path / "constraints.txt").write_text(constraints)
        (tmp_path / "images" / "torch" / "requirements.txt").write_text(image)
        monkeypatch.setattr(audit, "ROOT", tmp_path)
        monkeypatch.setattr(audit, "_PROGRAM", (sys.executable, str(tmp_path / "program.py")))
        return audit.main(), capsys.readouterr().out.splitlines()

    return start


def test_a_vulnerable_pin_fails_with_its_name_and_what_mends_it(run: Callable[..., Any]) -> None:
    flaw = {"id": "CVE-1", "fix_versions": ["2.8.0"]}
    code, said = run(CANARY | {"urllib3==2.7.0": [flaw], "six==1": []}, "six==1\nurllib3==2.7.0\n")
    assert code == 1
    assert said[0] == "[audit] urllib3 2.7.0: CVE-1, mended in 2.8.0"
    assert said[-1] == "[audit] 2 of 2 pins checked, 1 with known vulnerabilities"


def test_good_pins_pass_and_those_that_were_not_checked_are_named(run: Callable[..., Any]) -> None:
    code, said = run(CANARY | {"six==1": []}, "six==1\nours==1\n")
    assert (code, said[0]) == (0, "[audit] ours was not checked: not found")
    assert said[-1] == "[audit] 1 of 2 pins checked, 0 with known vulnerabilities"


def test_both_versions_of_a_name_are_checked(run: Callable[..., Any]) -> None:
    flaw = {"id": "CVE-2", "fix_versions": []}
    code, said = run(CANARY | {"six==1": [flaw], "six==2": []}, "six==2\n", "# Made by us\nsix==1\n")
    assert (code, said[0]) == (1, "[audit] six 1: CVE-2, not mended yet")


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"six==1": []}, "the index here knows no vulnerability of jinja2==2.4.1"),
        ({audit.CANARY: []}, "the index here knows no vulnerability of jinja2==2.4.1"),
        (None, "no index of vulnerabilities answers (ConnectionError: no route to the index)"),
    ],
    ids=["no such project", "no vulnerabilities", "no network"],
)
def test_an_index_without_vulnerabilities_proves_nothing(known: Any, reason: str, run: Callable[..., Any]) -> None:
    code, said = run(known, "six==1\n")
    assert (code, len(said)) == (0, 1)
    assert said[0].startswith(f"[audit] NOT CHECKED: {reason}")


def test_every_pin_of_development_and_images_is_audited() -> None:
    pins = audit.pinned(audit.ROOT)
    assert {"urllib3==2.8.0", "kfp==2.17.3"} <= set(pins)
    assert any(pin.startswith("nvidia-cublas") for pin in pins), "only the images have them"
