# gdb in a threaded program: a breakpoint, a step, backtraces, a system call, a core file.
gcc -g -pthread -o threads /mnt/threads.c
gdb -q -nx -batch -ex 'set pagination off' -ex 'break add' -ex run -ex bt -ex next \
    -ex 'print twice == n * 2' -ex delete -ex finish -ex continue ./threads 2>/dev/null |
    grep -E '^(Thread .* hit|#0|#1|\$|total|\[Inferior)' |
    sed -E 's/0x[0-9a-f]+/ADDRESS/g; s/Thread [0-9]/Thread N/; s/process [0-9]+/process/; s/n=[0-9]/n=N/'
gdb -q -nx -batch -ex 'catch syscall exit_group' -ex run -ex 'info registers rdi' \
    -ex 'generate-core-file core' -ex kill ./threads 2>/dev/null | grep -E '^(Catchpoint|rdi|Saved)'
gdb -q -nx -batch -ex 'bt' -ex 'print total' ./threads core 2>/dev/null | grep -E '^(#|\$)' |
    sed -E 's/0x[0-9a-f]+/ADDRESS/g'
