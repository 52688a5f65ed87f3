"""podman without root: as a user who is made for the test, in a mount namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.e2e.bundle import Result
from tests.full.runtimes import RUNTIME, is_there, only_ours

NEEDED = ("podman", "newuidmap", "setpriv", "slirp4netns", "pasta")
pytestmark = [
    pytest.mark.full,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {' '.join(NEEDED)}"),
    is_there,
]
USER = 12345
TIMEOUT_S = 120
REFUSED = "does not start: it may make no cgroup"

SETUP = """
set -e
place=$1 program=$2 runtime=$3 image=$4
shift 4
mount -t tmpfs none "$place"
mkdir "$place/home" "$place/run"
cp "$image" "$place/image"
chmod 644 "$place/image"
for file in passwd group; do cp /etc/$file "$place/$file"; done
echo "guest:x:12345:12345::$place/home:/bin/sh" >>"$place/passwd"
echo "guest:x:12345:" >>"$place/group"
echo guest:200000:65536 >"$place/sub"
mount --bind "$place/passwd" /etc/passwd
mount --bind "$place/group" /etc/group
for file in subuid subgid; do touch /etc/$file; mount --bind "$place/sub" /etc/$file; done
mknod "$place/kvm" c 10 232
mknod "$place/tun" c 10 200
chmod 666 "$place/kvm" "$place/tun"
mount --bind "$place/kvm" /dev/kvm
mount --bind "$place/tun" /dev/net/tun
# the runtime may lie where only root gets in
mkdir "$place/upper" "$place/work"
mount -t overlay -o "lowerdir=/root,upperdir=$place/upper,workdir=$place/work" none /root
folder=$program
while [ "$folder" != / ]; do folder=$(dirname "$folder"); chmod o+x "$folder" 2>&-; done || :
cp "$runtime" "$place/runsc"
chmod 755 "$place/runsc" "$place"
chown -R 12345:12345 "$place/home" "$place/run"
cd "$place/home"
exec setpriv --reuid=12345 --regid=12345 --clear-groups env -i HOME="$place/home" \\
    XDG_RUNTIME_DIR="$place/run" PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
    PODMAN_IGNORE_CGROUPSV1_WARNING=1 place="$place" sh -c "$@"
"""
"""Shell: a user with sub-ids and a home below the folder $1, who may use KVM and make taps."""
PODMAN = 'p() { podman --cgroup-manager=cgroupfs --runtime="$place/runsc" "$@"; }\n'


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, busybox: Path) -> Path:
    """The image, beside the runtime's script."""
    made = tmp_path_factory.mktemp("image") / "bb.tar"
    RUNTIME.script(made.parent / "runsc")
    subprocess.run(["tar", "-C", busybox, "-cf", made, "."], check=True)
    return made


def _as_guest(image: Path, script: str) -> Result:
    place = tempfile.mkdtemp(prefix="runsc-guest-")
    begin = 'podman import -q "$place/image" localhost/bb >/dev/null || exit\n'
    try:
        return subprocess.run(
            [
                *("unshare", "--mount", "sh", "-c", SETUP, "sh", place, RUNTIME.command[0]),
                *(str(image.parent / "runsc"), str(image), PODMAN + begin + script),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    finally:
        os.rmdir(place)


@pytest.mark.row("without root: `run`, `exec`, `rm`", gvisor=REFUSED)
def test_container_runs(image: Path) -> None:
    script = """
    p run -d --name=c --network=none localhost/bb sleep 1000 >/dev/null
    p exec c sh -c 'id -u; touch /made; stat -c %u /made'
    p rm --force --time=0 c
    """

    result = _as_guest(image, script)

    assert result.stdout.split() == ["0", "0", "c"], result.stderr


@only_ours
def test_state_is_the_users(image: Path) -> None:
    script = """
    p run -d --name=c --network=none localhost/bb sleep 1000 >/dev/null
    ls "$XDG_RUNTIME_DIR/runsc" | wc -l
    p rm --force --time=0 c
    """

    result = _as_guest(image, script)

    assert result.stdout.split() == ["1", "c"], result.stderr


@pytest.mark.row("without root: `--userns=keep-id`", gvisor=REFUSED)
def test_user_keeps_the_id_if_told_so(image: Path) -> None:
    run = "p run --rm --network=none --userns=keep-id -v $HOME:/v localhost/bb"
    inside = "id -u; cat /proc/self/uid_map; touch /v/made; stat -c %u /v/made"

    result = _as_guest(image, f"{run} sh -c '{inside}'; stat -c %u $HOME/made")

    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == [str(USER)], result.stderr
    assert [str(USER), "0", "1"] in rows
    assert rows[-2:] == [[str(USER)], [str(USER)]]


@pytest.mark.row("without root: slirp4netns and pasta", gvisor=REFUSED)
@pytest.mark.parametrize(("network", "address"), [("slirp4netns", "10.0.2.100"), ("pasta", "")])
def test_network_of_a_user_is_seen_inside(
    image: Path, network: str, address: str
) -> None:
    inside = "ip -o -4 addr; ip route"

    result = _as_guest(
        image, f"p run --rm --network={network} localhost/bb sh -c '{inside}'"
    )

    assert "default via" in result.stdout, result.stderr
    assert address in result.stdout
