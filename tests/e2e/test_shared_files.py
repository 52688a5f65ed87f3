"""A folder of the host that both sides change: whoever looks next sees it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.talker import Talker

LOOK = """
look() { cat /srv/d/file /srv/link; stat -c '%a %s %h' /srv/d/file; ls -d /srv/d/*; }
while read -r word; do
    for i in 1 2 3; do look >/tmp/$i 2>&1; done
    cmp -s /tmp/1 /tmp/3 || echo changing
    tr '\\n' ' ' </tmp/1; echo
done
"""
"""What is seen at once, and that it stays so."""


def _replace(folder: Path) -> None:
    (folder / "new").write_text("b\n")
    os.chmod(folder / "new", 0o644)
    os.rename(folder / "new", folder / "d/file")


CHANGES: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: None, "a l 644 2 1 /srv/d/file "),
    (lambda folder: (folder / "d/file").write_text("more\n"), "more l 644 5 1 /srv/d/file "),
    (lambda folder: (folder / "d/file").chmod(0o600), "more l 600 5 1 /srv/d/file "),
    (_replace, "b l 644 2 1 /srv/d/file "),
    (
        lambda folder: os.link(folder / "d/file", folder / "d/x"),
        "b l 644 2 2 /srv/d/file /srv/d/x ",
    ),
    (
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("d/file")),
        "b b 644 2 2 /srv/d/file /srv/d/x ",
    ),
    (lambda folder: (folder / "d/x").unlink(), "b b 644 2 1 /srv/d/file "),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    (made / "d").mkdir(parents=True)
    (made / "d/file").write_text("a\n")
    (made / "l").write_text("l\n")
    (made / "link").symlink_to("l")
    os.chmod(made / "d/file", 0o644)
    return made


def test_program_sees_what_the_host_has_changed(
    bundle: Bundle, folder: Path, platform: str
) -> None:
    mount = {"destination": "/srv", "type": "bind", "source": str(folder), "options": ["bind"]}
    bundle.document["mounts"].append(mount)
    program = Talker(bundle.args("sh", "-c", LOOK).command(platform))

    seen = []
    for change, _ in CHANGES:
        change(folder)
        program.say("look")
        seen.append(program.hear())

    assert program.end() == []
    assert [line.strip() for line in seen] == [line.strip() for _, line in CHANGES]


LOOK_AT = """
for name in . d d/sub d/file link fifo; do
    stat -c '%a %h %s' "$name" 2>/dev/null || echo "no $name"
done
readlink link; ls d; cat d/file 2>/dev/null
"""
"""What there is: attributes of each kind, names, contents."""
DOES = f"""
look() {{ {LOOK_AT} }}
cd /srv
while read -r line; do
    case "$line" in
    look) look | tr '\\n' ' '; echo;;
    *) eval "$line"; echo done;;
    esac
done
"""
STEPS = [
    ("host", "echo longer > d/file"),
    ("one", "echo here >> d/file"),
    ("two", "chmod 600 d/file"),
    ("host", "chmod 711 d/sub"),
    ("one", "mkdir d/sub/inner"),
    ("two", "rmdir d/sub/inner"),
    ("one", "ln -sfn d/file link"),
    ("host", "ln -s elsewhere new && mv new link"),
    ("two", "touch d/name"),
    ("one", "mv d/name d/other"),
    ("host", "mv d/other d/third"),
    ("two", "rm d/third"),
    ("one", "ln fifo d/fifo"),
    ("host", "chmod 600 fifo; rm d/fifo"),
    ("two", "mv d/sub moved && mkdir -m 700 d/sub"),
    ("host", "rm -r d && mkdir d && echo new > d/file"),
    ("one", "rm d/file && echo newer > d/file"),
    ("two", "mv d old && mkdir d && echo newest > d/file"),
    ("host", "rm -r d"),
    ("one", "mkdir d && mkdir d/sub"),
]


class Host:
    """The third who changes the folder, by whatever it is called now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def does(self, line: str) -> str:
        return subprocess.check_output(["sh", "-c", line], cwd=self.folder, text=True)

    def looks(self) -> str:
        return " ".join(self.does(f"{LOOK_AT}\ntrue").split())


class Sandbox:
    """A container that has the folder, too."""

    def __init__(self, command: list[str]) -> None:
        self.talker = Talker(command)

    def does(self, line: str) -> None:
        self.talker.say(line)
        assert self.talker.hear() == "done"

    def looks(self) -> str:
        self.talker.say("look")
        return " ".join(self.talker.hear().split())


def test_two_sandboxes_and_the_host_see_what_each_other_has_changed(
    tmp_path: Path, busybox: Path, platform: str
) -> None:
    """Told by a pipe that something was done, one looks, with what one has seen before in memory.
    In the middle the folder gets another name."""
    folder = tmp_path / "above" / "folder"
    (folder / "d" / "sub").mkdir(parents=True)
    (folder / "d" / "file").write_text("contents\n")
    (folder / "link").symlink_to("d")
    os.mkfifo(folder / "fifo")
    host, inside = Host(folder), {}
    for name in ("one", "two"):
        bundle = Bundle(tmp_path / name, busybox).args("sh", "-c", DOES)
        bundle.document["mounts"].append(
            {"destination": "/srv", "type": "bind", "source": str(folder), "options": ["rbind"]}
        )
        inside[name] = Sandbox(bundle.command(platform))

    for number, (who, line) in enumerate(STEPS):
        for each in inside.values():
            for _ in range(4):
                each.looks()
        if number == len(STEPS) // 2:
            os.rename(tmp_path / "above", tmp_path / "moved")
            host.folder = tmp_path / "moved" / "folder"
        if who == "host":
            host.does(line)
        else:
            inside[who].does(line)
        wanted = host.looks()
        for name, each in inside.items():
            assert each.looks() == wanted, (name, who, line)

    for each in inside.values():
        assert each.talker.end() == []


def _mount(bundle: Bundle, folder: Path, *places: str) -> None:
    for place in places:
        bundle.document["mounts"].append(
            {"destination": place, "type": "bind", "source": str(folder), "options": ["rbind"]}
        )


EXCLUSIVE = ["--file-access-mounts=exclusive"]


def test_volume_of_ones_own_is_on_the_host_at_once_and_hears_of_it(
    bundle: Bundle, folder: Path, platform: str
) -> None:
    _mount(bundle, folder, "/srv")
    program = Sandbox(bundle.args("sh", "-c", DOES).command(platform, EXCLUSIVE))
    program.does("ls -lR /srv >/dev/null; cat /srv/* /srv/d/file >/dev/null 2>&1")

    program.does("echo more >> d/file; mv l m; mkdir d/new; chmod 700 d/new")
    assert (folder / "d/file").read_text() == "a\nmore\n"
    assert (folder / "m").read_text() == "l\n"
    assert not (folder / "l").exists()
    assert (folder / "d/new").stat().st_mode & 0o777 == 0o700

    (folder / "d/new").rmdir()
    (folder / "d/file").write_text("host\n")
    program.does('until [ ! -e d/new ] && [ "$(cat d/file)" = host ]; do :; done')
    assert program.talker.end() == []


def test_folder_that_is_mounted_twice_is_the_same_at_once(
    bundle: Bundle, folder: Path, platform: str
) -> None:
    _mount(bundle, folder, "/srv", "/mnt")
    script = """
    ls -lR /srv /mnt > /dev/null
    echo one > /srv/d/new; cat /mnt/d/new; rm /mnt/d/new; ls /srv/d
    chmod 600 /srv/d/file; stat -c %a /mnt/d/file; mkdir /mnt/d/sub; stat -c %h /srv/d
    """
    done = bundle.args("sh", "-c", script).run(platform, flags=EXCLUSIVE)
    assert done.stdout.split() == ["one", "file", "600", str((folder / "d").stat().st_nlink)]
    assert "overlaps with" in done.stderr
