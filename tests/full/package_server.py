"""Packages, a repository and pages, and a native nginx that serves them over HTTP and HTTP/2.

`script` is what a container makes of them, which prints `said`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.archives import make_debs, make_wheels, npm_package
from tests.conftest import rootfs_of
from tests.e2e.bundle import native_command

PAGE = 3_000_000
CONFIG = """
user root; daemon off; pid /tmp/pid; error_log stderr; worker_processes 1;
events {}
http {
  access_log off; default_type application/octet-stream;
  client_body_temp_path /tmp/b; proxy_temp_path /tmp/p; fastcgi_temp_path /tmp/f;
  uwsgi_temp_path /tmp/u; scgi_temp_path /tmp/s;
  server {
    listen 80; listen [::]:80; listen 443 ssl; listen [::]:443 ssl; http2 on;
    ssl_certificate /mnt/cert.pem; ssl_certificate_key /mnt/key.pem;
    root /mnt/www; autoindex on;
    location ~ ^/npm-.*/p0$ { default_type application/json; try_files $uri.json =404; }
  }
}
"""
CLIENTS = """
set -e
cd /tmp; export HOME=/tmp
printf 'deb [trusted=yes] http://%s/debs ./\\n' {host} >list
mkdir -p lists/partial cache/archives/partial
set -- -qq -o APT::Sandbox::User=root -o Dir::State::lists=/tmp/lists -o Dir::Cache=/tmp/cache \\
    -o Dir::Etc::sourcelist=/tmp/list -o Dir::Etc::sourceparts=/dev/null
apt-get "$@" update; {packages}
pip install -q --target=/tmp/t --index-url http://{host}/simple/ --trusted-host {host} \\
    --no-cache-dir --disable-pip-version-check --root-user-action=ignore w0 w1
PYTHONPATH=/tmp/t python3 -c 'import w0.m7, w1; print("pip")'
mkdir n; cd n; npm install --silent --no-audit --no-fund --registry=http://{host}/npm-{host}/ p0
ls node_modules; cd ..
git clone -q http://{host}/git/r.git r; git -C r log --format=%s
for way in --http1.1 --http2; do
    curl -sS $way --cacert cert --resolve served:443:{host} -o page -w '%{{http_version}} ' \\
        https://served/page
    sha256sum <page | cut -c-64
done
curl -sS https://{host}/page 2>/dev/null || echo not trusted
"""


INSTALL = """apt-get "$@" install -y d0 d1 >/dev/null
dpkg-query -W -f '${Package} ${Version}\\n' d0 d1"""
DOWNLOAD = """apt-get "$@" download d0 d1
for each in d0 d1; do dpkg-deb -W --showformat='${Package} ${Version}\\n' ${each}_*.deb; done"""
"""For who owns nothing of the root file system."""


def made(folder: Path) -> None:
    """The folder that nginx serves, its settings and its certificate."""
    www = folder / "www"
    www.mkdir()
    make_debs(www / "debs")
    make_wheels(folder / "wheels")
    for wheel in (folder / "wheels").iterdir():
        place = www / "simple" / wheel.name.partition("-")[0]
        place.mkdir(parents=True)
        wheel.rename(place / wheel.name)
        (place / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>\n')
    _make_git(www / "git", folder / "work")
    (www / "page").write_bytes(page())
    (folder / "nginx.conf").write_text(CONFIG)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", "/CN=served",
         "-addext", "subjectAltName=DNS:served"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    for each in (folder, *folder.rglob("*")):
        each.chmod(0o755 if each.is_dir() else 0o644)


def page() -> bytes:
    """The same each time."""
    return b"".join(hashlib.sha256(b"%d" % each).digest() for each in range(PAGE // 32))


def _make_npm(folder: Path, host: str) -> None:
    """A registry with one package, which it says to be at this address."""
    folder.mkdir(exist_ok=True)
    raw = npm_package("p0", 0)
    digest = base64.b64encode(hashlib.sha512(raw).digest()).decode()
    (folder / "p0-1.0.0.tgz").write_bytes(raw)
    dist = {"tarball": f"http://{host}/npm-{host}/p0-1.0.0.tgz", "integrity": f"sha512-{digest}"}
    one = {"name": "p0", "version": "1.0.0", "dist": dist}
    document = {"name": "p0", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": one}}
    (folder / "p0.json").write_text(json.dumps(document))


def _make_git(folder: Path, work: Path) -> None:
    """A repository as files, which is how git clones over HTTP from who has no program for it."""
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@a"}
    who |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in who.items()}
    for command in (
        ["init", "-q", str(work)],
        ["-C", str(work), "commit", "-q", "--allow-empty", "-m", "first"],
        ["-C", str(work), "commit", "-q", "--allow-empty", "-m", "second"],
        ["clone", "-q", "--bare", str(work), str(folder / "r.git")],
        ["-C", str(folder / "r.git"), "update-server-info"],
    ):  # fmt: skip
        subprocess.run(["git", *command], check=True, env={**os.environ, **who})


def script(folder: Path, host: str, packages: str = INSTALL) -> str:
    """Shell: what a container makes of a server at an address."""
    _make_npm(folder / "www" / f"npm-{host}", host)
    certificate = (folder / "cert.pem").read_text()
    return f"cat >/tmp/cert <<'END'\n{certificate}END\n" + CLIENTS.format(
        host=host, packages=packages
    )


@contextmanager
def served(folder: Path, pid: int) -> Iterator[None]:
    """By nginx of the root file system `network`, in the network namespace of a process."""
    scratch = Path(tempfile.mkdtemp(prefix="runsc-native-"))
    chroot = native_command((), rootfs_of("network"), scratch, folder)
    enter = ["nsenter", f"--target={pid}", "--net"]
    command = [*enter, *chroot, "/usr/sbin/nginx", "-c", "/mnt/nginx.conf"]
    listens = "until grep -q ':01BB .* 0A ' /proc/net/tcp; do sleep 0.05; done"
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as nginx:
        try:
            subprocess.run([*enter, "timeout", "60", "sh", "-c", listens], check=True)
            yield
        finally:
            nginx.terminate()
    scratch.rmdir()


def said() -> list[str]:
    """What that prints."""
    digest = hashlib.sha256(page()).hexdigest()
    return [
        "d0 1.0", "d1 1.0", "pip", "p0", "second", "first", f"1.1 {digest}", f"2 {digest}",
        "not trusted",
    ]  # fmt: skip
