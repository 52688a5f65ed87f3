# Install the wheel with uv, as an ordinary user. Usage: uv.sh
. /scripts/common.sh
guest
quietly apt-get update
quietly apt-get install -y --no-install-recommends python3-venv
python3 -m venv /opt/uv
quietly /opt/uv/bin/pip install uv
as_guest 'export PATH=/opt/uv/bin:$PATH UV_PYTHON_DOWNLOADS=never UV_NO_PROGRESS=1
    quietly uv tool install --find-links=/dist runsc
    run_everything ~/.local/bin/runsc "$(uv tool dir)/runsc/bin/python"
    quietly uv tool uninstall runsc
    ls -A ~/.local/bin "$(uv tool dir)" | grep runsc || echo "no trace"'
