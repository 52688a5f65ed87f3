# A daemon with PAM: what root and a user have for its start, for every minute, and in /etc/cron.d.
set -e
useradd -m -s /bin/bash someone
mkdir -m 1777 /tmp/jobs
say='{ id; cat /proc/self/loginuid; echo; pwd; echo $SHELL $LOGNAME; }'
for who in root someone; do
    crontab -u $who - <<END
FROM=crontab
@reboot $say >/tmp/jobs/.$who; mv /tmp/jobs/.$who /tmp/jobs/$who
* * * * * echo \$FROM every minute >/tmp/jobs/.$who-minute; mv /tmp/jobs/.$who-minute /tmp/jobs/$who-minute
END
    crontab -u $who -l | head -1
done
echo '* * * * * someone echo system >/tmp/jobs/system' >/etc/cron.d/system
cron
for job in root someone root-minute someone-minute system; do
    until [ -s /tmp/jobs/$job ]; do read -rt 0.1 <> <(:) || :; done
    echo "$job:"
    cat /tmp/jobs/$job
done
pid=$(cat /run/crond.pid)
kill "$pid"
while [ -e /proc/$pid ]; do :; done
