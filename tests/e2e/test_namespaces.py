"""util-linux's tools for namespaces, inside a container: unshare, nsenter, lsns."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.abi.test_abi import with_everything
from tests.e2e.bundle import Bundle, kvm_is_usable

SCRIPT = """
show='id -u; id -g; echo $(cat /proc/self/uid_map)'
setpriv --reuid 1000 --regid 1000 --clear-groups unshare -Ur sh -c "$show"
unshare -pf --mount-proc sh -c 'echo $$; ps -o pid= -C sh | tr -d " "; exit 3'; echo $?
unshare -u sh -c 'hostname inner; hostname'; hostname
unshare -n sh -c 'tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d " "'
late='test $(cut -d. -f1 /proc/uptime) -ge 1000000000 && echo later'
unshare -T --boottime 1000000000 sh -c "$late"
mkfifo /tmp/ready
unshare -unpf --kill-child sh -c 'hostname joined; sleep 1000 & echo >/tmp/ready; wait' &
read line </tmp/ready
lsns -n -t net -o NPROCS | tail -1 | tr -d ' '
target=$(lsns -n -t pid -o PID | tail -1 | tr -d ' ')
nsenter -t $target -u -n -p sh -c 'hostname; kill -0 1 && echo first; kill -KILL 1; echo init lives'
{ kill -KILL %1; wait %1; } 2>/dev/null; echo $?
while [ -d /proc/$target ]; do :; done; echo gone
"""
EXPECTED = """0
0
0 1000 1
1
1
3
inner
test
lo
later
3
joined
first
init lives
137
gone
"""


def test_tools_of_util_linux_make_join_and_list_namespaces(debian: Path, tmp_path: Path) -> None:
    if not kvm_is_usable():
        pytest.skip("/dev/kvm cannot be used here")
    bundle = Bundle(tmp_path / "bundle", debian).args("/bin/bash", "-c", SCRIPT)

    done = bundle.configure(with_everything).run()

    assert (done.returncode, done.stdout, done.stderr) == (0, EXPECTED, "")
