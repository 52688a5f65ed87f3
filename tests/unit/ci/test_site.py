"""The documentation site, the manual pages, the pictures: what ci/ makes of the pages."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import codespell_lib
import pytest

import runsc
from runsc import fs, policy
from runsc.cli import COMMANDS, main_group

REPOSITORY = Path(__file__).resolve().parents[3]


def _made(*words: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=REPOSITORY, env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.full
@pytest.mark.timeout(400)
def test_every_link_of_the_site_leads_somewhere(tmp_path: Path) -> None:
    build = ("-m", "sphinx", "-W", "--keep-going", "-q", "-c", "ci/site", "-d", tmp_path / "trees")

    assert _made(*build, ".", tmp_path / "site") == ""

    start = (tmp_path / "site/docs/start.html").read_text()
    assert "Ten minutes" in start and "6.12.0" in start
    commands = (tmp_path / "site/docs/reference/commands.html").read_text()
    assert all(f'id="runsc-{name}"' in commands for name in COMMANDS)


def test_links_of_the_readme_lead_somewhere() -> None:
    """It is no page of the site, which has a beginning of its own."""
    links = re.findall(r"\]\((?!https:)(.*?)(?:#(.*?))?\)", (REPOSITORY / "README.md").read_text())

    assert len(links) > 30
    for path, anchor in links:
        assert (REPOSITORY / path).exists(), path
        if anchor:
            titles = re.findall(r"^#+ (.*)$", (REPOSITORY / path).read_text(), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", t).lower().replace(" ", "-") for t in titles}


def test_every_command_has_a_manual_page(tmp_path: Path) -> None:
    _made("ci/manpages.py", tmp_path)

    pages = {path.name for path in tmp_path.iterdir()}
    assert {f"runsc-{name}.1" for name in COMMANDS} | {"containerd-shim-runsc-v1.1"} < pages
    listed = (tmp_path / "runsc.1").read_text().replace("\\-", "-")
    assert all(line.replace("-", "") in listed.replace("-", "") for line in COMMANDS.values())


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
def test_manual_pages_are_shown_without_a_warning(tmp_path: Path) -> None:
    _made("ci/manpages.py", tmp_path)
    pages = sorted(tmp_path.iterdir())

    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-P", "cat", "-l", *pages],
        env={"MANWIDTH": "80", "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
    shown = {" ".join(line.split()) for line in done.stdout.splitlines()}
    for name in COMMANDS:
        command = main_group.get_command(click.Context(main_group), name)
        assert command is not None
        for line in (command.help or "").splitlines():
            if line.startswith("  runsc "):
                assert " ".join(line.split()) in shown, "an example is longer than a line"


def test_reference_has_all_that_is_public() -> None:
    text = (REPOSITORY / "docs/reference/python.md").read_text()
    shown = set(re.findall(r"^\.\. auto\w+:: runsc\.((?:fs\.|policy\.)?\w+)$", text, re.M))
    shown |= {f"policy.{name}" for name in re.findall(r"`(\w+)`", text)}
    shown |= set(re.findall(r"`(Async\w+)`", text))
    public = set(" ".join(runsc.PUBLIC.values()).split())
    public |= {f"fs.{name}" for name in vars(fs) if callable(getattr(fs, name))}

    assert not (public | {f"policy.{name}" for name in policy.__all__}) - shown


def test_words_are_spelt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    pages = [str(path) for path in Path().glob("*.md")]
    rooms = (
        "docs",
        "examples",
        "runsc",
        "sentry",
        "gofer",
        "kvm",
        "guest_stubs",
        "benchmarks",
        "ci",
    )

    wrong = codespell_lib.main(*pages, *rooms)

    assert not wrong, capsys.readouterr().out


def test_pictures_are_what_would_be_drawn() -> None:
    _made("ci/pictures.py", "--check")
