"""What pages show can be typed: commands, sessions, rules.

Commands of `console` blocks are run by tests/e2e/test_pages.py, Python by
tests/e2e/test_python_docs.py, policies by tests/unit/policy/test_docs.py.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest

from runsc import faults
from runsc.cli import main_group
from runsc.launch import tracing

ROOT = Path(__file__).resolve().parents[3]
FILES = (ROOT / "README.md", ROOT / "examples/README.md", *sorted((ROOT / "docs").rglob("*.md")))
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in FILES}
COMMANDS = sorted({
    words
    for page in PAGES.values()
    for line in re.findall(r"^    (?:sudo )?(runsc [a-z-].*)$", page, re.M)
    for words in re.split(r"; (?=runsc )", re.sub(r"\s+#.*| [>|] .*|[\[\]]", "", line))
})  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_that_is_shown_is_one(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[click.Context] = []
    monkeypatch.setattr(click.Command, "invoke", lambda _, context: made.append(context))
    main_group.main(shlex.split(line)[1:], standalone_mode=False)
    assert not isinstance(made[-1].command, click.Group)


def test_there_are_some() -> None:
    assert len(COMMANDS) > 40
    assert {line.split()[1] for line in COMMANDS} >= {"trace", "policy", "clock", "inject", "top"}


def test_the_session_that_is_shown_is_one(tmp_path: Path) -> None:
    [block] = re.findall(r"```json\n(.*?)```", PAGES["docs/monitoring.md"], re.S)
    path = tmp_path / "session.json"
    path.write_text(block)
    wanted = tracing.read(str(path))
    assert [point.name for point in wanted.session.points] == [
        each["name"] for each in json.loads(block)["trace_session"]["points"]
    ]


def test_the_faults_that_are_shown_are_such() -> None:
    shown = re.findall(r"[`'](\w+: (?:\w+=|loss|reorder)[^`']*)[`']", PAGES["docs/faults.md"])
    assert len(shown) > 6
    for rule in shown:
        assert faults.rules_of(rule)
