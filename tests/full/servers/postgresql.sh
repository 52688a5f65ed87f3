# initdb, start, pgbench, a crash and its recovery, stop. Arguments: seconds, clients.
seconds=${1:-2}
clients=${2:-4}
d=$(mktemp -d)
chown postgres "$d"
cd "$d"
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
export PGDATA=$d/data PGHOST=$d PATH
as() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
as initdb -A trust -N >init.log 2>&1 || { cat init.log; exit 1; }
echo "unix_socket_directories = '$d'" >>data/postgresql.conf
as pg_ctl -w -s -l "$d/log" start || { cat log; exit 1; }
as createdb bench
as pgbench -q -i -s 1 bench >bench.log 2>&1 || cat bench.log
as pgbench -c "$clients" -j 2 -T "$seconds" bench 2>&1 |
    grep -E 'number of (clients|failed)|error|abort'
as pgbench -n -h 127.0.0.1 -C -S -c 2 -t 10 bench 2>&1 | grep -E 'actually|number of failed|error|abort'
as psql -qAt bench <<'SQL' 2>&1 | sed 's/PID [0-9]*/PID/'
select sum(abalance) = (select sum(tbalance) from pgbench_tellers) from pgbench_accounts;
select sum(delta) = (select sum(bbalance) from pgbench_branches) from pgbench_history;
set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0;
set min_parallel_table_scan_size = 0;
select count(*), sum(aid) from pgbench_accounts;
create table t as select g, md5(g::text) m from generate_series(1, 20000) g;
create index on t (m);
analyze t;
select count(*) from t a join t b using (m);
listen l; notify l, 'x';
select pg_advisory_lock(1); select pg_advisory_unlock(1);
copy t to '/tmp/copied';
SQL
wc -l </tmp/copied
as psql -qAt bench -c 'select 1/0' 2>&1
echo code $?
as psql -qAt bench -c "set statement_timeout = 50; select pg_sleep(100)" 2>&1
as pg_ctl -s -w -m immediate stop
as pg_ctl -w -s -l "$d/log" start
as psql -qAt bench -c 'select count(*) from t'
as pg_ctl -s -w -m fast stop
echo stopped $?
grep -E 'PANIC|WARNING' log
ls
ps -C redis-server,nginx,postgres -o comm=
