# Functions of the scripts beside it.

quietly() { # COMMAND...: what it says is of interest if it fails
    "$@" >~/said 2>&1 || { cat ~/said; exit 1; }
}

traces() { # every file, but for what package managers and users keep of what was done
    find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /dist -o -path /scripts \
        -o -path /var/lib/dpkg -o -path /var/lib/apt -o -path /var/cache/apt -o -path /var/log \
        -o -path /var/cache/debconf -o -path /var/cache/man -o -path /root -o -path /home \) -prune -o -print | sort
    find / -xdev \( -path /proc -o -path /dist -o -path /scripts -o -path /busybox -o -path /var/cache/man \
        -o -path '*/.cache/uv' \) -prune -o -iname '*runsc*' -print
    find /run/runsc /run/user -name '*' ! -type d 2>/dev/null || :
    processes
}

processes() { # what runs, but for this shell and its children
    local each line
    for each in /proc/[0-9]*; do
        line=$(tr '\0' ' ' <"$each/cmdline" 2>/dev/null) || continue
        case "$line" in *runsc*) echo "process ${each##*/}: $line" ;; esac
    done
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
    # what README.md shows, which is in the package
    "$2" -c 'from importlib.metadata import distribution as of; print(of("runsc").metadata.get_payload())' |
        sed -n '/^```python/,/^```$/p' | sed '1d; /^```$/,$d' >~/readme.py
    "$2" ~/readme.py
}

run_its_tests() { # PYTHON: of the source distribution, whose packages are not there
    quietly "$1" -m pip install pytest pytest-timeout hypothesis
    mkdir ~/tree
    tar -C ~/tree --strip-components=1 --no-wildcards-match-slash --wildcards -xf /dist/runsc-*.tar.gz \
        'runsc-*/tests' 'runsc-*/pyproject.toml'
    (cd ~/tree && RUNSC_ROOTFS_BUSYBOX=/busybox "$1" -m pytest -q -rfE -p no:cacheprovider -k "not unicorn" \
        --basetemp="$HOME/basetemp" tests/e2e/test_{lifecycle,api}.py) >~/pytest.log 2>&1 ||
        { tail -n 60 ~/pytest.log; exit 1; }
    echo "its tests: $(tail -n 1 ~/pytest.log)"
    rm -r ~/tree ~/basetemp ~/pytest.log
}

guest() { # a user who may open /dev/kvm, as udev has it on a Debian
    getent group kvm >/dev/null || groupadd --system kvm
    chgrp kvm /dev/kvm
    useradd --create-home --shell /bin/bash --groups kvm guest
}

as_guest() { # COMMAND...
    su guest -c "cd; . /scripts/common.sh; $*"
}
