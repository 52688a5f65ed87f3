# libfuse's high-level interface: one directory as another.
source /mnt/common.bash
bindfs src mnt
mounted
cat mnt/a
echo new >mnt/d/new
mv mnt/d/new mnt/b
ln mnt/a mnt/hard
ln -s a mnt/soft
chmod 600 mnt/b
chown 5:6 mnt/b
truncate -s 3 mnt/d/numbers
touch -d @1234567890 mnt/a
stat -c '%h %Y %s' mnt/a
setfattr -n user.x -v y src/a 2>/dev/null || setfattr -n trusted.x -v y src/a
getfattr --absolute-names -d -m - mnt/a
cp /bin/ls mnt/ls
mnt/ls mnt
cmp /bin/ls src/ls
cp -a /usr/share/perl5 mnt/
diff -r /usr/share/perl5 src/perl5 && echo the same
tree src | head -8
rm -r mnt/perl5 mnt/ls
tree mnt
fusermount3 -u mnt
mounted || echo not mounted
