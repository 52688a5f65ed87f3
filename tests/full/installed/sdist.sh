# Build a wheel of the source distribution as who has no git, and install it. Usage: sdist.sh
. /scripts/common.sh
quietly apt-get update
quietly apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv
traces >/tmp/before
python3 -m venv ~/venv
quietly ~/venv/bin/pip install /dist/runsc-*.tar.gz
run_everything ~/venv/bin/runsc ~/venv/bin/python3
~/venv/bin/runsc zygote stop
quietly ~/venv/bin/pip cache remove runsc # the wheel that it has built
rm -r ~/venv /run/runsc
traces >/tmp/after
diff /tmp/before /tmp/after && echo "no trace"
