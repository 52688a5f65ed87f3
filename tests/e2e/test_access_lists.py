"""setfacl(1) and getfacl(1) say in a container what they say outside: acl(5)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.bundle import Bundle
from tests.e2e.installed import CAPABILITIES

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("setfacl"), reason="needs acl"),
]

SCRIPT = """
cd "$1"; umask 022
as() { setpriv --reuid=1000 --regid=1000 --clear-groups -- "$@" 2>&1; }
echo inside > f; chmod 640 f
as cat f
setfacl -m u:1000:rw,g:50:r f; getfacl -cn f; stat -c %A f
as cat f; as sh -c 'echo more >> f'; as setfacl -b f
chmod 600 f; as cat f; getfacl -cn f
setfacl -m m::r f; as cat f; as sh -c 'echo more >> f'
setfacl -d -m u:1000:rwx,o::- .; umask 077
mkdir d; touch g; as touch d/h; getfacl -cn . d g d/h
cp -p f copy; getfacl -cn copy
mkdir up; mv f up/f; getfacl -cn up/f
setfacl -R -b .; ls -l up/f g copy | cut -d' ' -f1
setfacl -m u::rw,g::r,o::- g; stat -c %A g; getfacl -cn g
"""


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What Linux says."""
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o755)
    command = ["sh", "-c", SCRIPT, "sh", folder]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "user:1000:rw-" in done.stdout
    return done.stdout


@pytest.mark.parametrize("place", ["/srv", "/memory", "/host"])
def test_lists_are_those_of_linux(place: str, expected: str, tmp_path: Path, debian: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    host.chmod(0o755)
    bundle = Bundle(tmp_path / "bundle", debian).args("sh", "-c", SCRIPT, "sh", place)
    process, mounts = bundle.document["process"], bundle.document["mounts"]
    process["capabilities"] = dict.fromkeys(process["capabilities"], CAPABILITIES)
    bundle.document["root"]["readonly"] = False
    for name in ("setfacl", "getfacl"):
        program = f"/usr/bin/{name}"
        mounts.append({"destination": program, "source": program, "options": ["bind", "ro"]})
    mounts.append({"destination": "/memory", "type": "tmpfs", "options": ["mode=755"]})
    mounts.append({"destination": "/host", "source": str(host), "options": ["bind"]})
    done = bundle.run()
    assert done.stdout.splitlines() == expected.splitlines()
    assert done.returncode == 0
