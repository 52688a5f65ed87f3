# nginx with two workers and ab; reload, log rotation, graceful end. Argument: number of requests.
requests=${1:-200}
d=$(mktemp -d)
chmod 755 "$d"
mkdir "$d/www"
head -c 100000 /dev/zero >"$d/www/large"
echo small >"$d/www/small"
cat >"$d/conf" <<CONF
worker_processes 2;
pid $d/pid;
error_log $d/error;
events { worker_connections 200; }
http {
    access_log $d/access;
    sendfile on;
    tcp_nopush on;
    gzip on;
    client_body_temp_path $d/body;
    server { listen 127.0.0.1:8080; listen unix:$d/s; root $d/www; location /status { return 201 "made\n"; } }
    server { listen 127.0.0.1:8081; location / { proxy_pass http://unix:$d/s:/; proxy_temp_path $d/proxy; } }
}
CONF
nginx -t -c "$d/conf" 2>&1 | tail -1 | sed 's/.*test/test/'
nginx -c "$d/conf" || exit 1
for url in 8080/small 8080/large 8081/small 8081/large; do
    for keep in "" -k; do
        ab -q $keep -c 20 -n "$requests" "http://127.0.0.1:$url" |
            grep -E '^(Complete|Failed|Non-2xx|Document Length|Total transferred|HTML|Keep)'
    done
done
curl -s -o /dev/null -w '%{http_code} %{size_download}\n' http://127.0.0.1:8080/nothing
curl -s --unix-socket "$d/s" http://x/status -H 'Accept-Encoding: gzip' -w '%{http_code}\n'
curl -s -r 5-9 http://127.0.0.1:8081/small -w '%{http_code}\n'
pid=$(cat "$d/pid")
mv "$d/access" "$d/access.1"
kill -USR1 $pid
until [ -e "$d/access" ]; do :; done
kill -HUP $pid
curl -s http://127.0.0.1:8080/small
kill -QUIT $pid
while [ -e /proc/$pid ]; do :; done
[ -e "$d/pid" ] && echo "pid file left"
cat "$d"/access.1 | grep -vc curl
grep -vE 'signal|notice' "$d/error" | sed 's/.*open/open/; s/tmp\.[^/]*/tmp/'
ls "$d"
ps -C redis-server,nginx,postgres -o comm=
