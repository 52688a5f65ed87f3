# A dockerd, and a published nginx; then what is heard is done, a line each.
export DOCKER_HOST=unix:///run/docker.sock
. /mnt/common.bash
dockerd --host=$DOCKER_HOST >/tmp/log 2>&1 &
until docker version >/dev/null 2>&1; do sleep 0.1; done
docker import /tmp/image.tar web >/dev/null
docker run -d --name=server -p 8080:80 web nginx -g 'daemon off;' >/dev/null || cat /tmp/log
listen
