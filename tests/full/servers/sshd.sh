# A daemon with PAM; root and a user log in with a key, with and without a terminal; copies; its end.
set -e
mkdir -p /run/sshd
ssh-keygen -A >/dev/null
install -d -m 700 ~/.ssh
ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519
cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
useradd -m -s /bin/bash -p '*' someone
install -d -m 700 -o someone ~someone/.ssh
install -m 600 -o someone ~/.ssh/authorized_keys ~someone/.ssh
/usr/sbin/sshd -E /tmp/log
options="-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
for who in root someone; do
    ssh $options $who@127.0.0.1 'id; cat /proc/self/loginuid; echo; pwd; echo $SHELL; wc -c' </etc/services
    ssh $options -tt $who@127.0.0.1 'tty; echo $TERM; exit 7' </dev/null || echo code $?
    ssh $options $who@127.0.0.1 'kill -TERM $$' || echo code $?
    sftp -q $options $who@127.0.0.1 >/dev/null <<END
put /etc/services copied
END
    cmp /etc/services "$(eval echo ~$who)/copied"
done
ssh $options -o BatchMode=yes nobody@127.0.0.1 true 2>/dev/null || echo code $?
ssh $options -f -N -L 2222:127.0.0.1:22 someone@127.0.0.1
ssh $options -p 2222 root@127.0.0.1 'echo through a tunnel'
pkill -f -- '-N -L'
kill "$(cat /run/sshd.pid)"
while [ -e /run/sshd.pid ]; do :; done
grep -o '^Accepted publickey for [a-z]*' /tmp/log
