# An image with nginx, as a tar: what it needs of this root, and a page.
exec 2>/tmp/errors
image=$(mktemp -d)
mkdir -p "$image"/{etc/nginx,dev,proc,sys,tmp,run,var/log/nginx,var/lib/nginx,usr/bin,usr/sbin,www}
for each in bin sbin lib lib64; do ln -s usr/$each "$image/$each"; done
cp /usr/bin/busybox "$image/usr/bin/"
for each in sh wget ps; do ln -s busybox "$image/usr/bin/$each"; done
cp /usr/sbin/nginx "$image/usr/sbin/"
for each in $(ldd /usr/sbin/nginx | grep -o '/[^ ]*'); do
    mkdir -p "$image/usr/${each%/*}" && cp -L "$each" "$image/usr/$each"
done
cp /etc/passwd /etc/group "$image/etc/"
echo served >"$image/www/index.html"
cat >"$image/etc/nginx/nginx.conf" <<'END'
error_log stderr;
events {}
http { server { listen 80; root /www; access_log off; } }
END
tar -C "$image" -cf /tmp/image.tar . && rm -r "$image"

# The page, once somebody serves.
ask() { curl -s --retry 20 --retry-connrefused --retry-delay 1 -m 20 "http://$1/" || echo "curl: $?"; }

# A line, and what it says in one.
listen() {
    echo ready
    while read -r line; do echo $(eval "$line" 2>&1); done
}
