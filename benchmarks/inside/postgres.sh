# start | bench | stop: a PostgreSQL of its own in /tmp/pg.
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
case $1 in
    start)
        mkdir -p /tmp/pg && chown postgres: /tmp/pg && cd /tmp/pg || exit 1
        as initdb -D /tmp/pg/data -A trust >/dev/null
        as pg_ctl -D /tmp/pg/data -w -l /tmp/pg/log -o '-k /tmp/pg -h ""' start
        as pgbench -h /tmp/pg -i -q postgres
        ;;
    bench) as pgbench -h /tmp/pg -c 2 -t 200 postgres ;;
    stop) as pg_ctl -D /tmp/pg/data -w -m fast stop ;;
esac
