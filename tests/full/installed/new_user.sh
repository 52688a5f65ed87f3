# Do what README.md and docs/start.md say, word by word, in a fresh clone: up to a program in a
# sandbox, a container of podman's and a fork in Python. Says how long each step took.
# Usage: new_user.sh root|guest
. /scripts/common.sh
who=$1

step() { # NAME COMMAND: as the user types it
    local begun=$EPOCHREALTIME
    if ! as_user "$2" >/tmp/said 2>&1 </dev/null; then
        cat /tmp/said
        echo "failed: $2"
        exit 1
    fi
    grep -E '^(42|warm|6\.12\.0|Hello from .*|exit code of .*)' /tmp/said || :
    echo "step $1: $(((${EPOCHREALTIME/./} - ${begun/./}) / 1000)) ms"
}

as_user() { # in the clone, in the virtual environment once it is there
    local words="cd ~/clone; if [ -e ~/venv ]; then . ~/venv/bin/activate; fi; $1"
    if [ "$who" = root ]; then bash -ec "$words"; else as_guest "$words"; fi
}

typed() { # WORDS: the line of README.md that begins so, without its comment
    grep -m1 "^    $1" /clone/README.md | sed 's/^    //; s/  *#.*//'
}

example() { # FILE HEADING: the first example in Python below it
    sed -n "/$2/,\$p" "/clone/$1" | sed -n '/^```python/,/^```$/p' | sed '/^```$/q' | grep -v '^```'
}

home=/root
sudo() { "$@"; }
quietly apt-get update
if [ "$who" = root ]; then
    cp -a /clone ~/clone
    step "ci/demo" "$(typed ci/demo)"
else
    guest
    home=/home/guest
    cp -a /clone /home/guest/clone
    chown -R guest: /home/guest/clone
    quietly apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv mmdebstrap \
        uidmap
fi
step "an environment" "python3 -m venv ~/venv"
step "pip install ." "$(typed 'pip install')"
step "runsc check" "$(typed 'runsc check')"
step "runsc do" "$(typed 'runsc do')"
step "ci/rootfs debian" "$(typed 'ln -s')"
step "runsc spec" "$(typed 'runsc spec')"
step "runsc run" "echo 'echo \$((6 * 7)); exit 0' | script -qec '$(typed 'runsc run')' /dev/null"
example README.md 'picture\|walls' >/tmp/first.py
example docs/start.md 'A copy of a warm one' >/tmp/fork.py
chmod 644 /tmp/*.py
step "first example" "python /tmp/first.py"
step "a fork" "python /tmp/fork.py"

quietly apt-get install -y --no-install-recommends podman crun netavark aardvark-dns uidmap slirp4netns \
    fuse-overlayfs catatonit
ln -s "$home/venv/bin/runsc" /usr/local/bin/runsc
sudo runsc install --engine podman
quietly tar -C "$home/clone/rootfs/" -cf /tmp/image.tar .
chmod 644 /tmp/image.tar
as_user "podman import -q /tmp/image.tar localhost/debian"
ip link set lo up 2>/dev/null || :
step "podman run" "$(sed -n 's/^    \(podman run .*debian uname -r\)/\1/p' /clone/docs/howto/engines.md)"
