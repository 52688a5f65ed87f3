# A published nginx of podman; then what is heard is done, a line each.
. /mnt/common.bash
podman import -q /tmp/image.tar web >/dev/null
podman run -d --name=server -p 8080:80 web nginx -g 'daemon off;' >/dev/null
listen
