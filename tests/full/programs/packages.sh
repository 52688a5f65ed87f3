# dpkg -i, and apt-get install from a repository made here.
set -e
package() {
    mkdir -p $1/DEBIAN $1/usr/bin $1/etc
    printf '#!/bin/sh\necho from %s\n' $1 >$1/usr/bin/$1-cmd
    echo conf >$1/etc/$1.conf
    echo /etc/$1.conf >$1/DEBIAN/conffiles
    cat >$1/DEBIAN/control <<C
Package: $1
Version: 1.0
Architecture: all
Maintainer: m <m@example.org>
Description: a package
${2:+Depends: $2}
C
    sed -i '/^$/d' $1/DEBIAN/control
    cat >$1/DEBIAN/postinst <<C
#!/bin/sh
echo "$1 \$1"
[ "\$1" != configure ] || adduser --system --quiet --no-create-home u$1
C
    chmod 755 $1/usr/bin/$1-cmd $1/DEBIAN/postinst
    dpkg-deb --root-owner-group -b $1 repo/
}
mkdir repo
package one
package two one
package three two
dpkg -i repo/one_1.0_all.deb | grep -v Reading
one-cmd
dpkg -s one | grep Status
dpkg -L one
dpkg -V one
dpkg -i repo/three_1.0_all.deb 2>&1 | tail -3
dpkg -r three | grep Removing

(cd repo && dpkg-scanpackages . 2>/dev/null | gzip >Packages.gz)
chmod 755 /root
rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
echo "deb [trusted=yes] file:$PWD/repo ./" >/etc/apt/sources.list.d/local.list
apt-get -q update 2>&1 | grep -E '^(E|W|Err)|done$' | sort
apt-get -q install -y three 2>&1 | grep -E '^(Setting|two|three)'
three-cmd
id uthree
apt-cache policy three | head -3
apt-get -q remove -y one 2>&1 | grep Removing
apt-get -q autoremove -y --purge 2>&1 | tail -1
apt-get -q check
dpkg --audit
ls /var/lib/dpkg/updates
