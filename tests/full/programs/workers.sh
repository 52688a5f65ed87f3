# multiprocessing by fork, spawn and forkserver.
for start in fork spawn forkserver; do
    python3 -B /mnt/workers.py $start
    echo "$start $?"
done
ls /dev/shm
