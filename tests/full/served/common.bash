# What the scripts begin with: a device, directories, a listing that does not change from run to run.
set -e
[ -e /dev/fuse ] || mknod -m 666 /dev/fuse c 10 229
mkdir -p /stage && mount -t tmpfs none /stage && cd /stage
mkdir src mnt
echo hello >src/a
mkdir src/d
seq 1000 >src/d/numbers
mounted() { grep -o ' /stage/mnt fuse[^ ]* [^ ]*' /proc/mounts; }
tree() { (cd "$1" && find . -printf '%y %m %U:%G %s %p %l\n' | sort | sed 's/^d \(.*\) [0-9]* \./d \1 ./'); }
