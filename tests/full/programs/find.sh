# find, grep -r, sort in pieces, xargs -P.
cd /usr/share || exit
find . -name '*.py' | sort | sha256sum
find . -type d -empty | sort | head
find . -size +100k -printf '%s %p\n' | sort -n | tail -3
find /usr/bin -type l -printf '%p %l\n' | sort | tail -3
grep -rl copyright /usr/share/perl 2>&1 | sort | wc -l
grep -rc import /usr/lib/python3.13/asyncio | sort | sha256sum
grep -rn --include='*.h' 'define EAGAIN' /usr/include | sort
find /usr/lib/python3.13 -name '*.py' -print0 | xargs -0 -P4 -n 20 sha256sum | sort | sha256sum
seq 1 20 | xargs -P4 -I{} sh -c 'exit 0'
echo "all well $?"
seq 3 | xargs -P4 -I{} sh -c 'exit 255' 2>/dev/null
echo "stopped $?"
seq 200000 | sort -R --random-source=/bin/bash | sort -n -S 1M --parallel=2 | sha256sum
ls -lR --time-style=+%s /usr/include | grep -v ^total | sha256sum
du -s --apparent-size --block-size=1 /usr/include/linux/can*
cd /root || exit
touch -d @1000 old
find /etc -maxdepth 1 -newer old | wc -l
find . -exec stat -c '%n %F %a' {} + | sort
find /tmp -mindepth 1 -delete
