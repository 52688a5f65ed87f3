from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path

import click
import pytest

from runsc.cli import COMMANDS, GROUPS, main, main_group
from runsc.containers import signals
from runsc.log import Log
from runsc.options import log_file


def _main(*args: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(args))
    return int(caught.value.code or 0)


def test_version_names_the_specification(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("--version") == 0
    assert capsys.readouterr().out.endswith("spec: 1.2.0\n")


def test_help_lists_the_commands_without_importing_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _main("--help") == 0
    output = capsys.readouterr().out
    assert all(name in output for name in COMMANDS)


def test_each_command_has_one_line_of_a_narrow_terminal() -> None:
    for group in GROUPS.values():
        column = max(map(len, group)) + 4
        assert all(column + len(line) <= 78 for line in group.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_is_what_its_own_flag_prints(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(name, "--help") == 0
    own = capsys.readouterr().out

    assert _main("help", name) == 0
    assert capsys.readouterr().out == own


def test_help_alone_is_that_of_runsc(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("--help") == 0
    own = capsys.readouterr().out

    assert _main("help") == 0
    assert capsys.readouterr().out == own


@pytest.mark.parametrize("group", [(), ("snapshot",), ("policy",)])
def test_group_alone_is_a_question_not_a_mistake(
    group: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(*group) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: ") and err == ""


def test_help_syscalls_lists_them_in_each_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("help", "syscalls") == 0
    assert capsys.readouterr().out.startswith("  0 read  ")
    assert _main("help", "syscalls", "--format", "csv") == 0
    assert capsys.readouterr().out.startswith("number,name,support,note\n0,read,")
    assert _main("help", "syscalls", "--format", "json") == 0
    assert json.loads(capsys.readouterr().out)[1]["name"] == "write"


def test_help_syscalls_lists_options_and_requests(capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("help", "syscalls", "--sockopts", "--format=csv") == 0
    assert "\nSOL_SOCKET,1,SO_DEBUG,partial," in capsys.readouterr().out
    assert _main("help", "syscalls", "--ioctls") == 0
    assert " 0x5421 FIONBIO " in capsys.readouterr().out
    assert _main("help", "syscalls", "--ioctls", "--sockopts", "--format=json") == 0
    groups = {row["group"] for row in json.loads(capsys.readouterr().out)}
    assert groups > {"SOL_SOCKET", "terminals"}


@pytest.mark.parametrize(
    "args",
    [("nonsense",), ("run", "--format=csv"), ("run", "--ioctls"), ("syscalls", "x")],
)
def test_help_of_what_is_not_there_ends_with_1(
    args: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main("help", *args) == 1
    assert "Error" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ("nonsense",),
        ("--platform=qemu", "run", "x"),
        ("run",),
        ("--overlay2=x", "run", "x"),
        ("do",),
    ],
)
def test_wrong_usage_ends_with_a_message(
    args: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _main(*args) == (125 if args == ("do",) else 1)
    assert "Error" in capsys.readouterr().err


def test_spec_writes_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert _main("spec", "--bundle", str(tmp_path)) == 0
    assert json.loads((tmp_path / "config.json").read_text())["ociVersion"] == "1.2.0"

    assert _main("spec", "--bundle", str(tmp_path)) == 1
    assert "config.json exists" in capfd.readouterr().err


def test_spec_for_an_ordinary_user_maps_the_caller(tmp_path: Path) -> None:
    assert _main("spec", "--rootless", "--bundle", str(tmp_path)) == 0

    linux = json.loads((tmp_path / "config.json").read_text())["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    kinds = [each["type"] for each in linux["namespaces"]]
    assert "user" in kinds and "network" not in kinds


def test_failure_goes_to_the_json_log_and_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    root = str(tmp_path / "root")

    code = _main(f"--root={root}", f"--log={log}", "--log-format=json", "run", "a/b")

    assert code == 1
    entry = json.loads(log.read_text())
    assert (entry["level"], entry["msg"]) == (
        "error",
        "runsc run failed: invalid container ID format: 'a/b'",
    )
    assert "invalid container ID format" in capsys.readouterr().err


def test_text_log_has_runcs_form(tmp_path: Path) -> None:
    path = tmp_path / "log"

    log = Log(str(path), "text", debug=False)
    log.warning('a "quoted" word')
    log.debug("not wanted")

    assert path.read_text().split(" ", 1)[1] == 'level=warning msg="a \\"quoted\\" word"\n'


@pytest.mark.parametrize(("name", "number"), [("TERM", 15), ("SIGKILL", 9), ("hup", 1), ("34", 34)])
def test_number_of_signal_takes_names_and_numbers(name: str, number: int) -> None:
    assert signals.number_of(name) == number


@pytest.mark.parametrize("name", ["BADSIG", "", "65", "-1", "SIG"])
def test_number_of_unknown_signal_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="unknown signal"):
        signals.number_of(name)


def test_every_command_has_a_line_in_the_docs() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "usage.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", page, re.M)
    assert {name for row in rows for name in re.findall(r"`([a-z-]+)", row)} >= COMMANDS.keys()


@pytest.mark.parametrize(
    ("pattern", "made"),
    [
        ("{}/a.%COMMAND%.log", r"a\.list\.log"),
        ("{}/%TIMESTAMP%", r"\d{8}-\d{6}\.\d{6}"),
        ("{}/new/", r"new/runsc\.log\.\d{8}-\d{6}\.\d{6}\.list\.txt"),
        ("{}/plain", "plain"),
    ],
)
def test_debug_log_may_be_a_pattern_or_a_folder(tmp_path: Path, pattern: str, made: str) -> None:
    found = log_file(pattern.format(tmp_path), "list")

    assert found is not None
    assert re.fullmatch(f"{re.escape(str(tmp_path))}/{made}", found)
    assert Path(found).parent.is_dir()


def _examples(name: str, capsys: pytest.CaptureFixture[str]) -> list[list[str]]:
    """The command lines of runsc in a help text, as words; what is said of one stands behind."""
    assert _main("help", name) == 0
    text = capsys.readouterr().out
    assert re.search(r"^  (Examples?:|bash:)", text, re.M), f"{name} shows nobody how it is used"
    lines = re.findall(r"^ +(runsc .*)", text, re.M)
    parts = [part for line in lines for part in line.split("   ")[0].split(" && ")]
    return [shlex.split(part)[1:] for part in parts]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_a_command_are_such_as_it_takes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in _examples(name, capsys):
        context = main_group.make_context("runsc", list(words))
        _, rest, _ = main_group.make_parser(context).parse_args(list(words))
        command: click.Command | None = main_group
        while isinstance(command, click.Group):
            found, command, rest = command.resolve_command(context, rest)
            assert command is not None
            context = command.make_context(found, list(rest), parent=context)


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_no_wider_than_a_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert _main("help", *filter(None, [name])) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
