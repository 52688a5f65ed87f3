# Functions of the scripts in ci/: sourced, not run. All of them work from the repository's root.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/runsc"
mkdir -p "$CACHE"
unset PYTHONDONTWRITEBYTECODE # commands, started by the thousand, have compiled modules, as users have

test_jobs=${RUNSC_TEST_JOBS:-$(($(nproc) + 1))} # tests at a time: they wait a sixth of their time

say() { printf '\n== %s\n' "$*"; }

# Run a command that may take long. A person at a terminal sees for how many seconds it has; nobody
# else sees anything of that. Usage: timed WHAT COMMAND...
timed() {
    local clock='' status=0
    if [ -t 2 ] && [ "${TERM:-dumb}" != dumb ]; then
        count_seconds "$1" </dev/null >/dev/null &
        clock=$!
    fi
    "${@:2}" || status=$?
    if [ -n "$clock" ]; then
        kill "$clock" 2>/dev/null || true
        wait "$clock" 2>/dev/null || true
        printf '\r\033[K' >&2
    fi
    return "$status"
}

# As long as this script lives: count_seconds WHAT
count_seconds() {
    local seconds=0
    while sleep 1 && kill -0 $$ 2>/dev/null; do
        printf '\r%s: %d s' "$1" $((++seconds)) >&2
    done
}

# Install Debian packages that are missing: need PACKAGE...
need() {
    local missing=() package
    for package; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID)); then
        echo "missing Debian packages: ${missing[*]} (run as root, or apt-get install them)" >&2
        return 1
    fi
    say "apt-get install ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    timed installing apt_install "${missing[@]}" || { tail -20 "$CACHE/apt.log" >&2; return 1; }
}

# From the lists of packages that are there, or else from new ones.
apt_install() {
    local install=(apt-get install -y -q --no-install-recommends "$@") log="$CACHE/apt.log"
    "${install[@]}" >"$log" 2>&1 || { apt-get update -q && "${install[@]}"; } >"$log" 2>&1
}

# A Python to use: $PYTHON, or the system's; 3.11 at least, with headers.
pick_python() {
    local candidate
    for candidate in ${PYTHON:-/usr/bin/python3 python3.13 python3.12 python3.11 python3}; do
        if "$candidate" -c '
import os, sys, sysconfig
header = os.path.join(sysconfig.get_path("include"), "Python.h")
sys.exit(sys.version_info < (3, 11) or not os.path.exists(header))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "no Python of 3.11 or newer with its headers was found" >&2
    return 1
}

# Give the folder of a virtual environment that holds what pyproject.toml asks for (all extras but
# the frameworks of runsc/providers, which tests/full installs), but not the project: that is run
# from the tree. Kept between runs, made anew when that changes.
developer_venv() {
    local python="$1" key venv
    key=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(sha256sum <pyproject.toml | cut -c1-12)
    venv="$CACHE/venv-$key"
    if [ ! -e "$venv/done" ]; then
        rm -rf "$venv"
        "$python" -m venv "$venv" >&2
        "$python" - >"$venv/requirements" <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
wanted = [extras[name] for name in extras if name not in ("openai-agents", "inspect-ai")]
print(*project["dependencies"], *sum(wanted, []), sep="\n")
PY
        timed "installing the environment" "$venv/bin/pip" install -q -r "$venv/requirements" >&2
        touch "$venv/done"
    fi
    echo "$venv"
}

# Can a Python tell which lines run, at no cost? (3.12 or newer)
can_be_measured() {
    "$1" -c 'import sys; sys.exit(not hasattr(sys, "monitoring"))'
}

# The time that a build of the last commit says it was made at, unless that is given already.
commit_date() {
    export SOURCE_DATE_EPOCH
    : "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y pyproject.toml)}"
}

# Copy what is committed, or a source distribution: committed_source FOLDER
committed_source() {
    if git rev-parse -q --verify HEAD >/dev/null 2>&1; then
        [ -z "$(git status --porcelain)" ] || echo "what is not committed is left out" >&2
        git archive HEAD | tar -C "$1" -x
    else
        cp -a . "$1"
    fi
}
