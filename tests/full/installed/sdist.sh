# Build a wheel of the source distribution as who has no git, and install it. Usage: sdist.sh
. /scripts/common.sh
quietly apt-get update
quietly apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv
python3 -m venv /opt/runsc
quietly /opt/runsc/bin/pip install /dist/runsc-*.tar.gz
run_everything /opt/runsc/bin/runsc /opt/runsc/bin/python
