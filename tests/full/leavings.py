"""What a program leaves in the files of a container, and how an engine shows it."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.full.engine import Engine

Binary = Callable[..., bytes]
"""A command of an engine, and what it writes."""
Leavings = dict[str, Any]

LABEL = """
#include <string.h>
#include <sys/xattr.h>
#include <linux/capability.h>
int main(int n, char **a)
{
    struct vfs_cap_data cap = {VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, {{1 << 10, 0}}};
    if (n == 2)
        return lsetxattr(a[1], "security.capability", &cap, sizeof cap, 0) < 0;
    return n == 4 ? lsetxattr(a[1], a[2], a[3], strlen(a[3]), 0) < 0 : lremovexattr(a[1], a[2]) < 0;
}
"""
"""setcap(8) and setfattr(1), which busybox has not."""

SCRIPT = r"""
umask 022
mkdir -p /made/a/b /made/empty && cd /made || exit 1
for i in 1 2 3 4 5 6 7 8 9; do echo $i >a/f$i; done
ln a/f1 a/b/hard; ln -s ../a/f2 soft; mkfifo pipe
chmod 4750 a/f3; chmod 1777 empty; chown 1000:1001 a/f4; chown -h 5:6 soft
mv a/f5 a/b/moved; mv a/b c; rm a/f6; touch -d @1000000000 a/f7 a
rm /bin/yes; mv /bin/true /bin/falsehood; chmod 711 /bin/cat
echo more >>/etc/passwd; rm -r /etc/removed; mkdir /etc/removed; echo new >/etc/removed/x
mkdir /lower/new; mv /lower/sub /moved && echo moved; chmod 600 /lower/one; echo more >>/lower/two
chown 7:8 /lower/owned; touch -d @1100000000 /lower/dated; rm -r /lower/gone
label a/f8 user.note written && label a user.note folder && label /lower/labelled user.note new
label /lower/labelled user.gone; label c user.gone x; label c user.gone
label a/f9 || echo no capabilities
chmod 2755 c; dd if=/dev/zero of=sparse bs=1 count=1 seek=1000000 2>/dev/null
i=0; while [ $i -lt 300 ]; do echo $i >t$i; rm t$i; i=$((i + 1)); done
"""
"""Changes of both layers; the image's /lower has a file of two names."""
SHOW = """
cd / && find made lower moved bin/falsehood bin/cat etc/removed etc/passwd | sort | while read f; do
    form='%n %F %a %u %g %h %s'
    [ -d $f -a ! -h $f ] && form='%n %a %u %g'
    stat -c "$form" $f
done
readlink made/soft; cat made/a/f? made/c/* lower/* etc/removed/* etc/passwd 2>/dev/null
for gone in bin/yes bin/true made/a/f6 made/t1 lower/gone; do
    [ -e $gone ] && echo $gone is back
done
stat -c '%n %Y' made/a/f7 made/a lower/dated
"""
"""The same from inside."""
ONCE = f"if [ -e /made ]; then {SHOW}\nelse {SCRIPT}\nfi"
"""The first start changes files, later ones show them."""
DATED = ("made/a/f7", "made/a", "lower/dated")
"""Times that the script has set."""


def image(folder: Path, rootfs: Path) -> Path:
    """A root file system with what the script wants to find."""
    root = folder / "root"
    shutil.copytree(rootfs, root, symlinks=True)
    (folder / "label.c").write_text(LABEL)
    label = ["gcc", "-O1", "-static", "-o", str(root / "bin" / "label"), str(folder / "label.c")]
    subprocess.run(label, check=True)
    (root / "etc" / "removed").mkdir(parents=True)
    (root / "etc" / "removed" / "old").touch()
    lower = root / "lower"
    (lower / "sub" / "deep").mkdir(parents=True)
    (lower / "gone").mkdir()
    for name in ("owned", "dated", "labelled", "gone/file"):
        (lower / name).write_text(f"{name}\n")
    os.setxattr(lower / "labelled", "user.gone", b"old")
    (lower / "one").write_text("one\n")
    (lower / "two").hardlink_to(lower / "one")
    return root


def members(archive: bytes) -> Leavings:
    """All that an archive says of each file, but for times that nobody has set."""
    found: Leavings = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            name = member.name.removeprefix("./").rstrip("/")
            file = tar.extractfile(member) if member.isreg() else None
            labels = {
                key: value
                for key, value in member.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }
            when = int(member.mtime) if name in DATED else None
            owner = member.mode, member.uid, member.gid
            data = b"" if file is None else file.read()
            found[name] = member.type, member.linkname, owner, when, labels, data
    return found


def newest_layer(archive: bytes) -> Leavings:
    """The same for the last layer of an image, as `save` writes it: whiteouts are `.wh.` files."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:

        def read(name: str) -> bytes:
            while (member := tar.getmember(name)).issym():
                name = os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))
            file = tar.extractfile(member)
            assert file is not None
            return file.read()

        manifest = json.loads(read("manifest.json"))
        return members(read(manifest[0]["Layers"][-1]))


def upper(folder: Path) -> Leavings:
    """What lies in the upper directory of an overlayfs: links, whiteouts and opaque directories."""
    found: Leavings = {}
    names: dict[int, list[str]] = {}
    for place in sorted(folder.rglob("*")):
        name, seen = str(place.relative_to(folder)), place.lstat()
        labels = {
            each: os.getxattr(place, each, follow_symlinks=False)
            for each in os.listxattr(place, follow_symlinks=False)
            if not each.startswith("trusted.overlay.") or each == "trusted.overlay.opaque"
        }
        owner = stat.S_IFMT(seen.st_mode), stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid
        when = int(seen.st_mtime) if name in DATED else None
        content: object = None
        if stat.S_ISLNK(seen.st_mode):
            content = os.readlink(place)
        elif stat.S_ISREG(seen.st_mode):
            content = place.read_bytes()
        if not stat.S_ISDIR(seen.st_mode) and seen.st_nlink > 1:
            names.setdefault(seen.st_ino, []).append(name)
        found[name] = owner, seen.st_rdev, when, labels, content
    found["links"] = sorted(names.values())
    return found


def of_container(engine: Engine, binary: Binary, name: str, *flags: str) -> Leavings:
    """What each command says of a container that has run the script: first of how it ended, then
    when it is started once more, and of the image that it becomes."""
    flags = ("--network=none", f"--name={name}", *flags)
    found: Leavings = {"says": engine.ok("run", *flags, engine.image, "sh", "-c", ONCE)}
    found["diff"] = sorted(engine.ok("diff", name).splitlines())
    found["export"] = members(binary("export", name))
    found["cp"] = members(binary("cp", f"{name}:/made", "-"))
    engine.ok("commit", name, f"localhost/{name}")
    found["commit"] = newest_layer(binary("save", f"localhost/{name}"))
    layer = engine.ok("inspect", "--format={{.GraphDriver.Data.UpperDir}}", name)
    found["upper"] = upper(Path(layer))
    found["later"] = engine.ok("start", "--attach", name)
    engine.ok("rm", name)
    return found


def of_build(engine: Engine, binary: Binary, folder: Path, *flags: str) -> Leavings:
    """The layer of a step that runs the script, which another step shows."""
    folder.mkdir()
    (folder / "script").write_text(SCRIPT)
    (folder / "show").write_text(SHOW)
    (folder / "Dockerfile").write_text(
        f"FROM {engine.image}\nCOPY script show /\nRUN sh /show >/shown 2>&1; sh /script\n"
    )
    engine.ok("build", "--no-cache", "--network=none", *flags, "--tag=localhost/left", str(folder))
    shown = engine.ok("run", "--rm", "--network=none", "localhost/left", "sh", "/show")
    return {"layer": newest_layer(binary("save", "localhost/left")), "later": shown}


def compare(wanted: Leavings, got: Leavings) -> None:
    """The first difference is enough to know."""
    assert sorted(got) == sorted(wanted)
    for name, value in wanted.items():
        if isinstance(value, dict):
            compare(value, got[name])
        else:
            assert got[name] == value, name
