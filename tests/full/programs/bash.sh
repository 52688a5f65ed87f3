# Process substitution, coprocesses, wait -n, traps, limits, /dev/tcp.
set -u
diff <(seq 1 5) <(seq 2 6)
paste <(printf 'a\nb\n') <(printf '1\n2\n')
while read -r line; do echo "got $line"; done < <(printf '%s\n' one two)
echo "$(cat <(cat <(cat <(echo nested))))"

coproc upper { while read -r line; do echo "${line^^}"; done; }
upper_pid=$upper_PID
for word in alpha beta; do
    echo "$word" >&"${upper[1]}"
    read -r answer <&"${upper[0]}"
    echo "$answer"
done
eval "exec ${upper[1]}>&-"
wait "$upper_pid"
echo "coprocess $?"

cd "$(mktemp -d)"
mkfifo gate1 gate2
echo through > >(tr a-z A-Z >gate1)
cat gate1

# bash forgets a job that ends before it waits: these end once it is in wait4(2)
until_parent_waits() { until read -r call _ </proc/$$/syscall && [ "$call" = 61 ]; do :; done; }
(read -r <gate1; until_parent_waits; exit 3) &
(read -r <gate2; until_parent_waits; exit 4) &
echo >gate1
wait -n
echo "first $?"
echo >gate2
wait -n
echo "second $?"
wait -n
echo "none $?"
sleep 60 &
kill $!
wait $!
echo "killed $?"

trap 'echo chld' CHLD
(exit 0) &
wait
trap - CHLD
trap 'echo usr1' USR1
kill -USR1 $$
trap 'echo exiting' EXIT
exec 5<>/dev/tcp/127.0.0.1/1 || echo refused
mapfile -t lines < <(seq 1000)
echo "${#lines[@]} ${lines[999]}"
exec 7>file
echo data >&7
exec 7>&-
cat file - <<<here
ulimit -n
ulimit -St 100
ulimit -t
(set -o pipefail; yes | head -2; echo "${PIPESTATUS[@]}")
(trap '' XFSZ; ulimit -f 1; head -c 10000 /dev/zero >big; echo "too large $?"; stat -c %s big) 2>&1
read -t 0.05 -r gate <>gate1
echo "timeout $?"
