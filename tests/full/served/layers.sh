# The kernel's overlay: what is marked in the layers, for root and for users, and over files that a
# program serves.
source /mnt/common.bash
layers() { mount -t overlay -o "$1" none mnt && grep -o ' /stage/mnt overlay .*' /proc/mounts; }
marks() { getfattr -R -h -d -m "$1" "$2" | sort; }
mkdir up work src/lower
echo lower >src/lower/file
layers lowerdir=src,upperdir=up,workdir=work,redirect_dir=on
rm -r mnt/d
mkdir mnt/d mnt/other
mv mnt/lower mnt/other/renamed
cat mnt/other/renamed/file
tar -C mnt -cf all.tar . && tar -tf all.tar | sort
tree up
marks 'trusted.overlay.(opaque|redirect)' up
umount mnt
mkdir up2 work2
layers lowerdir=src,upperdir=up2,workdir=work2,userxattr
rm -r mnt/lower
mkdir mnt/lower
echo mine >mnt/lower/mine
ls mnt/lower
umount mnt
tree up2
marks 'user.overlay.opaque' up2
mksquashfs /usr/share/perl5 image -quiet -no-progress >/dev/null
mkdir served up3 work3
squashfuse image served
layers lowerdir=served,upperdir=up3,workdir=work3
diff -r /usr/share/perl5 mnt && echo the same
first=$(find mnt -type f | sort | head -1)
echo more >>"$first"
cmp "$first" "/usr/share/perl5${first#mnt}" >/dev/null 2>&1 || echo changed
rm -r mnt/*
ls -A mnt
umount mnt
umount served
