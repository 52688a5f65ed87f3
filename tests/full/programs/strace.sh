# strace -f of a shell script; counts, paths, injected errors.
cat >script <<'S'
echo one | cat
(exit 3)
/bin/true
S
strace -f -o log sh script
echo $?
calls='^(execve|clone|vfork|exit_group|pipe2?|\+\+\+)[^,]*'
sed -E 's/^[0-9]+ +//' log | grep -oE "$calls" |
    sed -E 's/clone.*/clone/; s/\)?( *= \?| <unfinished \.\.\.>)$//' | sort | uniq -c
gcc -pthread -o threads /mnt/threads.c
strace -c -f -o counts ./threads
echo $?
grep -oE '(clone3|exit_group|total)$' counts | sort
strace -e trace=write ./threads 2>&1 >/dev/null | grep -v exited
strace -e inject=write:error=EIO ./threads >/dev/null 2>&1
echo $?
strace -y -e trace=openat,close cat /etc/hosts 2>&1 | grep hosts | tail -2
strace -k true 2>/dev/null
echo $?
