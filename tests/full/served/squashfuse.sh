# squashfuse: a tree that cannot be changed.
source /mnt/common.bash
cp -a /usr/share/perl5 src/
mksquashfs src image -quiet -no-progress >/dev/null
squashfuse image mnt
mounted
diff -r src mnt && echo the same
echo x 2>/dev/null >mnt/new || echo refused
wc -l <mnt/d/numbers
umount mnt
