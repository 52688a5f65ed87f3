# Take the steps of a new user: each a file that tests/full/test_new_user.py has made of a block of a
# page, in a login shell of its own, in the clone. What it says goes into a file beside it; how long
# it took is said here. Usage: new_user.sh root|guest
. /scripts/common.sh
who=$1
home=/root
trusted=SSL_CERT_FILE,PIP_CERT,http_proxy,https_proxy,DEBIAN_FRONTEND,LC_ALL

quietly apt-get update
quietly apt-get install -y sudo systemd procps # as a Debian has that was installed
echo 'APT::Get::Assume-Yes "true";' >/etc/apt/apt.conf.d/yes # nobody is there to be asked
echo "127.0.0.1 localhost $(uname -n)" >/etc/hosts
getent group kvm >/dev/null || groupadd --system kvm
chgrp kvm /dev/kvm
[ ! -e /dev/net/tun ] || chmod 666 /dev/net/tun /dev/fuse
if [ "$who" = guest ]; then
    useradd --create-home --shell /bin/bash --groups sudo guest
    home=/home/guest
    printf 'Defaults env_keep += "%s"\n%%sudo ALL=(ALL) NOPASSWD: ALL\n' "${trusted//,/ }" >/etc/sudoers.d/test
fi
install -d -m 700 -o "$who" "/run/user/$(id -u "$who")"
cp -a /clone "$home/clone"
chown -R "$who:" "$home/clone"

for step in /steps/*.sh; do
    words="export XDG_RUNTIME_DIR=/run/user/$(id -u "$who"); cd ~/clone"
    words+="; if [ -e ~/venv ]; then . ~/venv/bin/activate; fi; . $step"
    begun=$EPOCHREALTIME status=0
    su --login --whitelist-environment="$trusted" "$who" -c "$words" >"${step%.sh}.said" 2>&1 </dev/null || status=$?
    echo "$(basename "$step" .sh): $(((${EPOCHREALTIME/./} - ${begun/./}) / 1000)) ms, exit code $status"
    [ "$status" = 0 ] || exit 0
done
