# The programs of tests/abi about files, over libfuse: where each ends.
source /mnt/common.bash
bindfs src mnt
set +e
for program in /mnt/programs/*; do
    mkdir mnt/here
    cd mnt/here
    last=$(timeout 60 env --default-signal "$program" 2>&1 | tail -n 1)
    cd /stage
    rm -rf mnt/here
    echo "${program##*/}: ${last##*/}"
done
umount mnt
