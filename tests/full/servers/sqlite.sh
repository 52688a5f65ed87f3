# Two processes write one database in WAL mode, a third one reads; a killed writer leaves it whole.
set -e
cd "$(mktemp -d)"
sqlite3 db 'pragma journal_mode=wal; create table t (who int, n int); create index i on t (n);'
writer() {
    for n in $(seq 1 100); do
        echo "begin immediate; insert into t values ($1, $n); commit;"
    done | sqlite3 -cmd '.timeout 60000' db
}
writer 1 & first=$!
writer 2 & second=$!
sqlite3 -cmd '.timeout 60000' db 'select count(*) >= 0 from t; select coalesce(sum(n), 0) >= 0 from t;' \
    || echo failed
wait $first $second
sqlite3 db 'select who, count(*), sum(n) from t group by who; pragma integrity_check;'
echo 'begin; insert into t values (3, 1);
.shell kill -KILL $PPID' >killed
sh -c 'sqlite3 db <killed; echo killed $?' 2>/dev/null
sqlite3 db 'select count(*) from t; pragma wal_checkpoint(truncate); vacuum; pragma integrity_check;'
sqlite3 db 'pragma mmap_size=10000000; select count(*) from t, t as u;'
sqlite3 db 'insert into nowhere values (1)' 2>&1 || echo code $?
ls
