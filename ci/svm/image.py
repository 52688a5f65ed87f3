"""What the machine of ci/svm/run starts with: the folder `start`, which becomes its initramfs.

It holds busybox, KVM's modules, init, and two archives that init unpacks. base.cpio: busybox, the
running Python with its standard library and the packages that the tests import; made anew when one
of them changes. tree.cpio: this tree.
"""

from __future__ import annotations

import compileall
import hashlib
import importlib.metadata
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent.parent
ROOMS = ("kvm", "guest_stubs", "sentry", "gofer", "runsc", "tests", "benchmarks")
DISTRIBUTIONS = (
    "cffi", "pytest", "pytest-timeout", "pluggy", "iniconfig", "packaging", "pygments", "msgspec",
    "pyelftools", "click", "hypothesis", "sortedcontainers",
)  # fmt: skip
MODULES = ("virt/lib/irqbypass", "arch/x86/kvm/kvm", "arch/x86/kvm/kvm-amd")
ROOTFS = """#!/bin/sh
echo /rootfs
"""
LEFT_OUT = shutil.ignore_patterns(
    "test", "idlelib", "tkinter", "ensurepip", "config-*", "site-packages", "dist-packages",
    "lib2to3", "*.a", "__pycache__", ".hypothesis",
)  # fmt: skip


class Image:
    """A folder that becomes an archive."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._libraries: set[Path] = set()

    def place(self, path: Path) -> Path:
        """Where an absolute path lies in the image; its folder exists afterwards."""
        target = self.root / path.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def put(self, path: Path, at: Path | None = None) -> None:
        """A file, executable or library, with the libraries that it is linked to."""
        if path in self._libraries:
            return
        self._libraries.add(path)
        shutil.copy(path.resolve(), self.place(at or path))
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for word in linked.split():
            if word.startswith("/"):
                self.put(Path(word))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """A small file."""
        target = self.place(Path(path))
        target.write_text(text)
        target.chmod(mode)

    def compile(self) -> None:
        """Byte code of all of Python: the emulated CPU needs long for that."""
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(
            self.root, quiet=2, invalidation_mode=mode, stripdir=str(self.root), workers=2
        )

    def pack(self, archive: Path) -> None:
        """An uncompressed cpio archive: the emulated CPU unpacks it faster."""
        names = subprocess.run(
            ["find", "."], cwd=self.root, check=True, stdout=subprocess.PIPE
        ).stdout
        fresh = archive.with_suffix(".new")
        with fresh.open("wb") as out:
            subprocess.run(
                ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
                cwd=self.root, input=names, stdout=out, check=True,
            )  # fmt: skip
        fresh.replace(archive)


def put_python(image: Image) -> None:
    """The running interpreter, its standard library, and the packages of DISTRIBUTIONS."""
    interpreter = Path(os.path.realpath(sys.executable))
    standard = Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(standard, image.place(standard), ignore=LEFT_OUT, dirs_exist_ok=True)
    for path in [interpreter, *standard.glob("lib-dynload/*.so")]:
        image.put(path)
    for name in DISTRIBUTIONS:
        for file in importlib.metadata.files(name) or ():
            source = Path(str(file.locate()))
            if "__pycache__" in file.parts or ".." in file.parts or not source.is_file():
                continue
            target = Path("/site", *file.parts)
            if source.suffix == ".so":
                image.put(source, target)
            else:
                shutil.copy(source, image.place(target))
    image.write("/python", str(interpreter))
    image.write("/python.home", sys.base_prefix)


def make_base(work: Path) -> None:
    """Everything but the tree, unless it is there and is the same."""
    state = [sys.version, sys.executable, Path(__file__).read_text()]
    state += [f"{name} {importlib.metadata.version(name)}" for name in DISTRIBUTIONS]
    state += [path.name for path in (work / "kernel/boot").iterdir()]
    stamp = hashlib.sha256("\n".join(state).encode()).hexdigest()
    kept = work / "base.stamp"
    if kept.exists() and kept.read_text() == stamp:
        return
    busybox = shutil.which("busybox")
    assert busybox
    (modules,) = (work / "kernel/usr/lib/modules").iterdir()
    start = work / "start"
    shutil.rmtree(start, ignore_errors=True)
    for name in ("bin", "modules"):
        (start / name).mkdir(parents=True)
    shutil.copy(busybox, start / "bin/busybox")
    for module in MODULES:
        packed = modules / "kernel" / f"{module}.ko.xz"
        plain = subprocess.run(["xz", "-dc", packed], check=True, stdout=subprocess.PIPE).stdout
        (start / "modules" / f"{Path(module).name}.ko").write_bytes(plain)
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder))
        image.put(Path(busybox), Path("/bin/busybox"))
        put_python(image)
        image.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        image.write("/etc/group", "root:x:0:\n")
        for name in ("bin", "etc", "proc", "sys", "tmp", "dev", "root"):
            (image.root / "rootfs" / name).mkdir(parents=True)
            (image.root / name).mkdir(exist_ok=True)
        shutil.copy(busybox, image.root / "rootfs/bin/busybox")
        applets = subprocess.run(
            [busybox, "--list"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        for applet in applets.split():
            if applet != "busybox":
                (image.root / "rootfs/bin" / applet).symlink_to("busybox")
        image.write("/rootfs/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        image.compile()
        image.pack(start / "base.cpio")
    kept.write_text(stamp)


def make_tree(work: Path) -> None:
    """The tree, and what was made for it outside."""
    start = work / "start"
    for name in ("init", "labels.py"):
        shutil.copy(TREE / "ci/svm" / name, start)
    (start / "init").chmod(0o755)
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder))
        tree = Path(folder) / "tree"
        ignore = shutil.ignore_patterns("__pycache__", "*.new", ".*")
        for room in ROOMS:
            if (TREE / room).is_dir():
                shutil.copytree(TREE / room, tree / room, ignore=ignore)
        shutil.copytree(work / "made", tree / "made")
        shutil.copy(TREE / "pyproject.toml", tree)
        image.write("/tree/ci/rootfs", ROOTFS, 0o755)
        image.compile()
        image.pack(start / "tree.cpio")


if __name__ == "__main__":
    make_base(Path(sys.argv[1]))
    make_tree(Path(sys.argv[1]))
