# podman and buildah inside, root's and a user's, over fuse-overlayfs; `kernel`: root's, over overlay.
source /mnt/common.bash
mkdir -p /dev/shm /dev/mqueue /var/lib/containers /etc/containers
mount -t proc proc /proc
mount -t tmpfs none /dev/shm
mount -t mqueue none /dev/mqueue
mount -t tmpfs none /var/lib/containers
chmod 1777 /dev/shm
chmod 666 /dev/fuse
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
cat >/etc/containers/storage.conf <<END
[storage]
driver = "overlay"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
END
[ "$1" = kernel ] || cat >>/etc/containers/storage.conf <<END
[storage.options.overlay]
mount_program = "/usr/bin/fuse-overlayfs"
END
mkdir -p image/bin image/proc image/sys image/dev image/tmp
cp /bin/busybox image/bin
for name in sh cat id ls grep cut; do ln -s busybox image/bin/$name; done
tar -C image -cf image.tar .
chmod 644 image.tar
cat >run <<'END'
podman import /stage/image.tar small >/dev/null 2>&1
podman run --rm --network=none --cgroups=disabled --security-opt seccomp=unconfined small \
    sh -c 'id -u; grep " / " /proc/mounts | cut -d" " -f3; echo new >/new; cat /new; ls /' 2>&1
END
bash run
printf 'FROM localhost/small\nRUN echo built >/built\nRUN cat /built\n' >Dockerfile
podman tag small localhost/small
buildah bud --isolation chroot --ulimit nofile=1024:1024 -t built . >build.log 2>&1
podman run --rm --network=none --cgroups=disabled --security-opt seccomp=unconfined \
    localhost/built cat /built
[ "$1" != kernel ] || exit 0
useradd -m -u 1000 user
echo user:100000:65536 | tee /etc/subuid >/etc/subgid
mkdir -p /run/user/1000 /home/user/.config/containers
printf '[storage]\ndriver = "overlay"\n[storage.options.overlay]\nmount_program = "/usr/bin/fuse-overlayfs"\n' \
    >/home/user/.config/containers/storage.conf
chown -R 1000 /run/user/1000 /home/user
cd /
HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 \
    setpriv --reuid 1000 --regid 1000 --clear-groups bash /stage/run
