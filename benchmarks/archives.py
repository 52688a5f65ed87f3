"""Packages that need no network: npm's, wheels, Debian's. Small files, the same each time."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEELS, MODULES = 10, 100
DEBS, FILES = 20, 100
PARTS = 10
"""Files of a package of npm."""


def text(number: int) -> bytes:
    """Of a file: 1 to 4 kB, of which no two are the same."""
    return b"".join(b"line %d of %d\n" % (line, number) for line in range(60 + number * 7 % 180))


def make_npm(folder: Path, packages: int) -> None:
    """Archives, and a package.json and a lock file that name them all, by their paths in /mnt."""
    folder.mkdir()
    wanted: dict[str, str] = {}
    locked: dict[str, object] = {}
    for number in range(packages):
        name = f"p{number}"
        file = f"/mnt/npm/{name}-1.0.0.tgz"
        raw = npm_package(name, number)
        (folder / f"{name}-1.0.0.tgz").write_bytes(raw)
        digest = base64.b64encode(hashlib.sha512(raw).digest()).decode()
        wanted[name] = f"file:{file}"
        locked[f"node_modules/{name}"] = {
            "version": "1.0.0", "resolved": f"file:{file}", "integrity": f"sha512-{digest}",
        }  # fmt: skip
    head = {"name": "bench", "version": "1.0.0"}
    own = {**head, "dependencies": wanted}
    lock = {**head, "lockfileVersion": 3, "requires": True, "packages": {"": own, **locked}}
    (folder / "package.json").write_text(json.dumps(own))
    (folder / "package-lock.json").write_text(json.dumps(lock))


def npm_package(name: str, number: int) -> bytes:
    """What `npm pack` writes."""
    files = {"package.json": json.dumps({"name": name, "version": "1.0.0"}).encode()}
    files |= {f"lib/part{part}.js": text(number * PARTS + part) for part in range(PARTS)}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(f"package/{path}")
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def make_wheels(folder: Path) -> None:
    """PEP 427."""
    folder.mkdir()
    for number in range(WHEELS):
        name = f"w{number}"
        files = {
            f"{name}/m{module}.py": b'"""%s"""\n' % text(number * MODULES + module)
            for module in range(MODULES)
        }
        files[f"{name}/__init__.py"] = b""
        info = f"{name}-1.0.dist-info"
        files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode()
        files[f"{info}/WHEEL"] = (
            b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        rows = [f"{path},{recorded(data)},{len(data)}" for path, data in files.items()]
        files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
        with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
            for path, data in files.items():
                archive.writestr(path, data, zipfile.ZIP_DEFLATED)


def recorded(data: bytes) -> str:
    """As a RECORD has it."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={digest.decode()}"


def make_debs(folder: Path) -> None:
    """Packages, and the index of an archive."""
    folder.mkdir()
    entries: list[str] = []
    for number in range(DEBS):
        name = f"d{number}"
        control = (
            f"Package: {name}\nVersion: 1.0\nArchitecture: all\nMaintainer: bench <bench@localhost>"
            f"\nDescription: {FILES} files\n"
        )
        with tempfile.TemporaryDirectory() as made:
            tree = Path(made)
            tree.chmod(0o755)
            (tree / "DEBIAN").mkdir()
            (tree / "DEBIAN" / "control").write_text(control)
            home = tree / "usr" / "share" / name
            home.mkdir(parents=True)
            for file in range(FILES):
                (home / f"f{file}").write_bytes(text(number * FILES + file))
            package = folder / f"{name}_1.0_all.deb"
            command = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(package)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        raw = package.read_bytes()
        digest = hashlib.sha256(raw).hexdigest()
        file_of = f"Filename: ./{package.name}\nSize: {len(raw)}\nSHA256: {digest}\n"
        entries.append(control + file_of)
    (folder / "Packages").write_text("\n".join(entries))
