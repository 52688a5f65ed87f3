# Install the wheel that is for this Python with pip, pipx and uv, as root and as an ordinary user, run
# programs, remove it, and print what is left. Usage: wheels.sh
. /scripts/common.sh

wheel() { # the most special one that fits
    local of
    of=$(python3 -c 'import sys; print("cp{0}{1}-cp{0}{1}".format(*sys.version_info))')
    ls /dist/runsc-*-"$of"-*.whl 2>/dev/null || ls /dist/runsc-*-abi3-*.whl
}

compiled() { # PYTHON: how many of its modules
    "$1" -c 'from runsc.launch import ahead; ahead.install(); print("modules compiled:", len(ahead.compiled()))'
}

by_pip() {
    python3 -m venv ~/venv
    quietly ~/venv/bin/pip install "$(wheel)"
    run_everything ~/venv/bin/runsc ~/venv/bin/python3
    compiled ~/venv/bin/python3
    run_its_tests ~/venv/bin/python3
    ~/venv/bin/runsc zygote stop
    quietly ~/venv/bin/pip uninstall -y runsc
    find ~/venv/lib/*/site-packages/{runsc,sentry,kvm,gofer,guest_stubs} -type f ! -name '*-pytest-*' \
        -printf 'left: %p\n' 2>/dev/null || : # pytest keeps what it makes of a plug-in
    rm -r ~/venv
}

by_pipx() {
    quietly pipx install "$(wheel)"
    run_everything ~/.local/bin/runsc "$(dirname "$(readlink -f ~/.local/bin/runsc)")/python"
    ~/.local/bin/runsc zygote stop
    quietly pipx uninstall runsc
}

by_uv() {
    export PATH=/opt/uv/bin:$PATH UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
    quietly uv tool install "$(wheel)"
    run_everything ~/.local/bin/runsc "$(dirname "$(readlink -f ~/.local/bin/runsc)")/python"
    ~/.local/bin/runsc zygote stop
    quietly uv tool uninstall runsc
}

guest
quietly apt-get update
quietly apt-get install -y --no-install-recommends pipx python3-venv
python3 -m venv /opt/uv
quietly /opt/uv/bin/pip install uv
ways=$(declare -f wheel compiled by_pip by_pipx by_uv)
for who in root guest; do
    for way in pip pipx uv; do
        traces >/tmp/before
        echo "== $way, $who"
        if [ "$who" = root ]; then
            (cd; "by_$way")
        else
            as_guest "$ways; set -e; by_$way"
        fi
        rm -r /run/runsc /tmp/runsc-* 2>/dev/null || : # the states, as docs/packages.md says
        traces >/tmp/after
        diff /tmp/before /tmp/after && echo "no trace"
    done
done
