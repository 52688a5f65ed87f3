# Install the wheel with pipx, as an ordinary user. Usage: pipx.sh
. /scripts/common.sh
guest
quietly apt-get update
quietly apt-get install -y --no-install-recommends pipx python3-venv
as_guest 'quietly pipx install --pip-args="--find-links=/dist" runsc
    runsc=~/.local/bin/runsc
    run_everything $runsc ~/.local/*/pipx/venvs/runsc/bin/python
    quietly pipx uninstall runsc
    ls -A ~/.local/bin ~/.local/*/pipx/venvs | grep runsc || echo "no trace"'
