# The kernel's overlay, over layers in memory: what programs see, and what is left in the layers.
source /mnt/common.bash
mkdir -p one two/d two/keep two/old/deep up work
cp -a src/. one
echo two >two/a
seq 100 >two/d/below
echo gone >two/old/deep/file
echo kept >two/keep/file
ln -s a two/link
for i in $(seq 200); do
    mkdir -p many/$((i % 20))
    echo $i >many/$((i % 20))/$i
done
over() { mount -t overlay -o "lowerdir=one:two,upperdir=up,workdir=work$1" none mnt; }
over
grep -c ' /stage/mnt overlay ' /proc/mounts
cat mnt/a mnt/link
wc -l <mnt/d/numbers
wc -l <mnt/d/below
tar -cf - many | tar -C mnt -xf -
sed -i s/hello/bye/ mnt/a
rm -r mnt/old
mkdir mnt/old
ls -A mnt/old
mv mnt/d/below mnt/moved
mv mnt/d mnt/e
cp -a mnt/e mnt/f
ln mnt/a mnt/hard
rm -r mnt/many/1*
tree mnt
tree up
umount mnt
over ,redirect_dir=on
mkdir mnt/inner
mv mnt/many mnt/inner/few
mv mnt/keep mnt/inner/kept
mv mnt/old mnt/older
umount mnt
over
tree mnt
umount mnt
rm -r up work
mkdir up work
over ,userxattr
rm -r mnt/d
mkdir mnt/d
umount mnt
over ,userxattr
tree mnt
umount mnt
tree one
tree two
