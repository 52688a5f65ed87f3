# fuse-overlayfs: libfuse's low-level interface, with splice(2), xattrs and whiteouts.
source /mnt/common.bash
mkdir up tmp
fuse-overlayfs -o lowerdir=src,upperdir=up,workdir=tmp mnt 2>/dev/null
mounted
echo changed >mnt/a
rm mnt/d/numbers
mkdir mnt/new
echo more >mnt/new/file
mv mnt/d mnt/other
chown 5:6 mnt/new/file
cp /bin/ls mnt/ls
mnt/ls mnt
cp -a /usr/share/perl5 mnt/
diff -r /usr/share/perl5 mnt/perl5 && echo the same
rm -r mnt/perl5
tree mnt
tree src
tree up
umount mnt
