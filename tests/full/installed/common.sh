# Functions of the scripts beside it.

quietly() { # COMMAND...: what it says is of interest if it fails
    "$@" >~/said 2>&1 || { cat ~/said; exit 1; }
}

traces() { # every file, but for what the package manager and users keep of what was done
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /dist -o -path /scripts \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/log \
        -o -path /var/cache/debconf -o -path /root -o -path /home \) -prune -o -print | sort
    find /run/runsc /var/cache/runsc 2>/dev/null || :
}

run_everything() { # RUNSC PYTHON: programs in sandboxes, from the command line and from Python
    "$1" --version
    "$1" check >~/check || { cat ~/check; exit 1; }
    "$1" do sh -c 'uname -r; id -u'
    "$2" - <<'PY'
from runsc import Sandbox

with Sandbox.create(forkable=True) as sandbox:
    sandbox.files.write("/tmp/state", "warm")
    first, second = sandbox.fork(2)
    with first, second:
        first.files.write("/tmp/state", "changed")
        print(first.files.read("/tmp/state"), second.files.read("/tmp/state"))
PY
}

guest() { # a user who may open /dev/kvm, as udev has it on a Debian
    getent group kvm >/dev/null || groupadd --system kvm
    chgrp kvm /dev/kvm
    useradd --create-home --shell /bin/bash --groups kvm guest
}

as_guest() { # COMMAND...
    su guest -c "cd; . /scripts/common.sh; $*"
}
