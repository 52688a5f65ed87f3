from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runsc.accounts import Ids
from runsc.commands import do_values
from runsc.errors import RuntimeFailure


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("text", "target", "options"),
    [
        ("./data:/data", "/data", ["rbind", "rw"]),
        ("data:/data:rw", "/data", ["rbind", "rw"]),
        ("{}/data:/data:ro", "/data", ["rbind", "rro"]),
        ("./data:/data:ro,z", "/data", ["rbind", "rro"]),
        ("./data:/data:Z", "/data", ["rbind", "rw"]),
        ("./data", "{}/data", ["rbind", "rw"]),
        ("./data:/x/../data/", "/data", ["rbind", "rw"]),
    ],
)
def test_volume_is_a_bind_mount(
    tmp_path: Path, text: str, target: str, options: list[str]
) -> None:
    made = do_values.volume(text.format(tmp_path))

    assert made.destination == target.format(tmp_path)
    assert (made.type, made.source, made.options) == ("bind", f"{tmp_path}/data", options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'': SRC:DST[:ro], a file or folder of the host and where it is inside"),
        (":/x", "':/x': SRC:DST[:ro], a file or folder of the host and where it is inside"),
        ("./data:/x:wx", "'./data:/x:wx': SRC:DST[:ro], a file or folder of the host and where it"
         " is inside"),
        ("./data:/x:ro:y", "'./data:/x:ro:y': SRC:DST[:ro], a file or folder of the host and where"
         " it is inside"),
        ("./data:x", "'./data:x': 'x' is no path below / inside"),
        ("./data:", "'./data:': '.' is no path below / inside"),
        ("./data:/x/..", "'./data:/x/..': '/' is no path below / inside"),
        ("./data:/", "'./data:/': '/' is no path below / inside"),
        ("./none:/x", "'./none:/x': {}/none: no such file or directory"),
        ("none:/x", "'none:/x': {}/none: no such file or directory; volumes have no names here,"
         " only places on the host"),
    ],
)  # fmt: skip
def test_volume_that_is_none_is_told(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        do_values.volume(text)
    assert str(caught.value) == f"--volume {message.format(tmp_path)}"


def test_variables_come_from_files_and_then_from_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTSIDE", "here")
    monkeypatch.delenv("NOWHERE", raising=False)
    (tmp_path / "env").write_text("# a comment\n\n  A=from a file \nB=2=3\nOUTSIDE\n  #C=4\nD=\n")

    found = do_values.variables(["env"], ["B=word", "NOWHERE", "E='x'"])

    assert found == {"A": "from a file ", "B": "word", "OUTSIDE": "here", "D": "", "E": "'x'"}


@pytest.mark.parametrize(
    ("files", "words", "message"),
    [
        ([], ["=x"], "--env: '=x' is not NAME=VALUE"),
        ([], [""], "--env: '' is not NAME=VALUE"),
        (["bad"], [], "--env-file bad, line 2: 'B =2' is not NAME=VALUE"),
        (["none"], [], "--env-file none: no such file or directory"),
        (["data"], [], "--env-file data: is a directory"),
        (["zero"], [], "--env-file zero: this is no file of variables"),
    ],
)
def test_variables_that_are_none_are_told(
    tmp_path: Path, files: list[str], words: list[str], message: str
) -> None:
    (tmp_path / "bad").write_text("A=1\nB =2\n")
    (tmp_path / "zero").write_bytes(bytes(10))
    with pytest.raises(RuntimeFailure) as caught:
        do_values.variables(files, words)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "quota"), [("0.5", 50_000), ("1", 100_000), (".01", 1000)])
def test_cpus_are_a_quota(text: str, quota: int) -> None:
    assert do_values.cpu_quota(text) == {"cpu": {"quota": quota, "period": 100_000}}


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "nan", "inf", "1.2.3", "٣"])
def test_cpus_that_are_no_number_are_told(text: str) -> None:
    with pytest.raises(RuntimeFailure) as caught:
        do_values.cpu_quota(text)
    assert str(caught.value) == f"--cpus {text!r}: a number of CPUs, such as 0.5 or 2"


@pytest.mark.parametrize("text", ["0", "0.001", "100000"])
def test_cpus_that_nobody_has_are_told(text: str) -> None:
    most = len(os.sched_getaffinity(0))
    with pytest.raises(RuntimeFailure) as caught:
        do_values.cpu_quota(text)
    assert str(caught.value) == f"--cpus {text}: from 0.01 to {most}, as many as there are here"


def test_host_name_is_short() -> None:
    assert do_values.host_name("box") == "box"
    for text in ("", "x" * 65, "a\nb"):
        with pytest.raises(RuntimeFailure, match=r"--hostname .*: a name of 1 to 64 bytes"):
            do_values.host_name(text)


def test_user_is_found_in_the_files_of_the_tree(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("web:x:101:102::/:/bin/sh\n")
    (tmp_path / "etc" / "group").write_text("www:x:33:\nall:x:7:web\n")

    assert do_values.user("web", str(tmp_path)) == Ids(101, 102, (7,))
    assert do_values.user("web:www", str(tmp_path)) == Ids(101, 33)
    assert do_values.user("5:6", str(tmp_path)) == Ids(5, 6)
    with pytest.raises(RuntimeFailure, match="/etc/passwd has no user 'root'"):
        do_values.user("root", str(tmp_path))


def test_files_out_of_the_tree_or_that_are_none_say_nothing_of_users(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "passwd").symlink_to("/etc/passwd")
    os.mknod(tree / "etc" / "group", stat.S_IFIFO | 0o600)

    with pytest.raises(RuntimeFailure, match="no user 'root'"):
        do_values.user("root", str(tree))
    with pytest.raises(RuntimeFailure, match="no group 'root'"):
        do_values.user("0:root", str(tree))
    (tree / "etc" / "group").unlink()
    (tree / "etc" / "group").mkdir()
    with pytest.raises(RuntimeFailure, match="no group 'root'"):
        do_values.user("0:root", str(tree))


def test_folder_may_be_one_of_a_volume(tmp_path: Path) -> None:
    (tmp_path / "data" / "below").mkdir()
    volumes = [do_values.volume("./data:/tmp/data")]

    for path in ("/", "/tmp", "/tmp/data", "/tmp/data/below", "/tmp/data/../data/below"):
        assert do_values.is_folder("/", path, volumes), path
    for path in ("/tmp/data/none", "/none", "/tmp/data/below/../none"):
        assert not do_values.is_folder("/", path, volumes), path


def test_interpreter_is_the_one_on_the_path(tmp_path: Path) -> None:
    (tmp_path / "python3").touch(0o755)

    assert do_values.interpreter({"PATH": str(tmp_path)}) == f"{tmp_path}/python3"
    assert os.path.isabs(do_values.interpreter({"PATH": "/nowhere"}))
