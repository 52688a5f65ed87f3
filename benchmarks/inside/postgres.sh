# start | bench | stop [FOLDER [TRANSACTIONS]]: a PostgreSQL of its own, in /tmp/pg.
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
at=${2:-/tmp/pg}
as() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
case $1 in
    start)
        mkdir -p "$at" && chown postgres: "$at" && cd "$at" || exit 1
        as initdb -D "$at/data" -A trust >/dev/null
        as pg_ctl -D "$at/data" -w -l "$at/log" -o "-k $at -h ''" start
        as pgbench -h "$at" -i -q postgres
        ;;
    bench) as pgbench -h "$at" -c 2 -t "${3:-200}" postgres ;;
    stop) as pg_ctl -D "$at/data" -w -m fast stop ;;
esac
