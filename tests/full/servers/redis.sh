# A server on loopback and on a Unix socket; benchmarks; a snapshot by fork; a restart; the end.
# The number of requests is the argument.
set -e
requests=${1:-2000}
cd "$(mktemp -d)"
start() {
    redis-server --port 6379 --bind 127.0.0.1 --unixsocket "$PWD/s" --save '' --dir "$PWD" \
        --daemonize yes --pidfile "$PWD/pid" --appendonly yes --io-threads 2 --logfile "$PWD/log" >/dev/null
    until redis-cli ping 2>/dev/null | grep -q PONG; do :; done
    until redis-cli ping | grep -qx PONG; do :; done
}
stop() {
    pid=$(cat pid)
    redis-cli shutdown
    while [ -e /proc/$pid ]; do :; done
}
benchmark() {
    redis-benchmark -q -c 50 -n "$requests" "$@" | tr '\r' '\n' | grep 'requests per second' |
        sed 's/: .*/: done/'
}
start
benchmark -t set,get,incr,lpush,mset
benchmark -s s -t set,get -P 16
redis-cli set kept value
redis-cli save
redis-cli bgsave
until redis-cli info persistence | grep -q 'rdb_bgsave_in_progress:0'; do :; done
redis-cli info persistence | grep -E '^rdb_last_bgsave_status|^aof_last_write'
redis-cli bgrewriteaof
until redis-cli info persistence | grep -q 'aof_rewrite_in_progress:0'; do :; done
redis-cli subscribe channel >heard & reader=$!
until [ "$(redis-cli publish channel x)" = 1 ]; do :; done
until grep -qx x heard; do :; done
kill $reader
head -3 heard
rm heard
redis-cli --pipe-timeout 10 eval 'return redis.call("get", KEYS[1]) .. ARGV[1]' 1 kept s
redis-cli -s s blpop nothing 0.05
redis-cli nonsense || echo code $?
stop
start
redis-cli get kept
stop
ls
ps -C redis-server,nginx,postgres -o comm=
