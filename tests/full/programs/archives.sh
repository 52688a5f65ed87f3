# tar, gzip, xz, zstd, sha256sum, cp and rm over 10,000 files.
set -e
mkdir src
for d in {0..99}; do
    mkdir src/$d
    for f in {0..99}; do echo "file $d $f" >src/$d/$f; done
done
find src -type f | wc -l
tar --sort=name --mtime=@0 -cf a.tar src
sha256sum a.tar
for packer in gzip xz zstd; do
    tar --sort=name --mtime=@0 -I $packer -cf a.$packer src
    tar -tf a.$packer | wc -l
done
mkdir out
tar -C out -xf a.xz
diff -rq src out/src
rm -r out
find src -type f -print0 | sort -z | xargs -0 sha256sum >sums
sha256sum sums
sha256sum --quiet -c sums
zstd -q -T2 -9 -k a.tar
zstd -q -dc a.tar.zst | cmp - a.tar
xz -T2 -0 -k a.tar
xz -dc a.tar.xz | cmp - a.tar
gzip -k a.tar
gzip -t a.tar.gz
cp -a src copy
rm -r copy
mv src moved
find moved -type f -delete
rmdir moved/*
ls -A moved
