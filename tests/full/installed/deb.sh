# Install the Debian package, run programs as root and as an ordinary user, purge it, and print what is
# left. Usage: deb.sh
. /scripts/common.sh

quietly apt-get update
guest
# what it depends on is no part of it
quietly apt-get install -y --no-install-recommends python3 systemd
traces >/tmp/before

quietly apt-get install -y /dist/runsc-python_*~deb"$(. /etc/os-release && echo "$VERSION_ID")"u*.deb
echo "installed $(dpkg-query -W -f '${Status}' runsc-python)"
run_everything runsc python3
as_guest run_everything runsc python3
ls /usr/share/man/man1/runsc.1.gz
bash -c '. /usr/share/bash-completion/completions/runsc; complete -p runsc'
systemd-analyze --man=no verify runsc-zygote.socket runsc-zygote.service
XDG_RUNTIME_DIR=/run systemd-analyze --man=no --user verify runsc-zygote.socket runsc-zygote.service
socket=$(sed -n 's/^ListenSequentialPacket=//p' /usr/lib/systemd/system/runsc-zygote.socket)
[ "$socket" = "$(runsc zygote path)" ] && echo "the unit's socket is the zygote's"

quietly apt-get purge -y runsc-python
traces >/tmp/after
diff /tmp/before /tmp/after && echo "no trace"
