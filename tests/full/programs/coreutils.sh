# What else coreutils, util-linux, procps and psmisc have.
lsof -p $$ -Ff 2>/dev/null | grep -E '^f(cwd|[012])' | sort
pstree -A $$
ps -eo ppid,stat,comm --no-headers | awk '{ print NF }' | sort -u
top -bn1 | head -1 | cut -c1-5
free -b | wc -l
fuser /etc/hosts
killall -0 bash
pidof bash >/dev/null
echo "bash runs $?"
vmstat | wc -l
pmap $$ | tail -1 | awk '{ print NF }'
nice -n 5 nice
ionice -c 2 -n 3 ionice
taskset -c 0 nproc
timeout 0.1 sleep 60
echo "timeout $?"
setsid sh -c 'ps -o sid= -p $$ | grep -c $$'
chrt -m | head -2
prlimit --nofile=50 sh -c 'ulimit -n'
stdbuf -o0 echo unbuffered
exec 9>lock
flock 9
flock -n lock echo twice
echo "locked $?"
split -b 300 -d /etc/passwd part
cat part* | cmp - /etc/passwd
truncate -s 1G sparse
cp --sparse=always sparse sparse2
stat -c '%s %b' sparse2
fallocate -l 1M full
stat -c %s full
dd if=/dev/zero of=x bs=1M count=3 conv=fsync status=none
ln x y
stat -c %h y
shred -n1 -u x
sync
df --output=target / | tail -1
install -m 640 -o nobody /etc/passwd i
touch -d @1 i
stat -c '%U %a %Y' i
chown :nogroup .
chmod g+s .
mkdir sg
stat -c '%A %G' sg
chown root:root sg
setpriv --reuid=nobody --clear-groups sh -c 'id -u; kill -0 1'
su nobody -s /bin/sh -c 'id -u; ls /root'
tail -f -n1 /etc/hosts &
kill $!
wait $!
echo "killed $?"
uname -sm
getconf PAGESIZE
date -u -d @86400 +%F
shuf -i 1-5 | sort -n | tail -1
factor 1234567890123
numfmt --to=iec 123456
getent passwd nobody
who
logname
tty
stty
echo "no terminal $?"
