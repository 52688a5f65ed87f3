# Install the Debian package, run programs as root and as an ordinary user, ask shells, man and systemd
# for what is theirs, purge it, and print what is left. Usage: deb.sh
. /scripts/common.sh

activated() { # UNIT-FOLDER: started by who asks at its socket, as systemd would, and asked again
    local socket before
    socket=$(sed -n 's/^ListenSequentialPacket=//p' "/usr/lib/systemd/$1/runsc-zygote.socket")
    socket=${socket/#%t/"${XDG_RUNTIME_DIR:-}"}
    [ "$socket" = "$(runsc zygote path)" ] && echo "the unit's socket is the zygote's"
    mkdir -p -m 700 "$(dirname "$socket")"
    systemd-socket-activate --seqpacket -l "$socket" \
        $(sed -n 's/^ExecStart=//p' "/usr/lib/systemd/$1/runsc-zygote.service") >~/activated 2>&1 &
    until [ -S "$socket" ]; do kill -0 $!; done
    [ "$(cat "/proc/$!/comm")" != runsc-zygote ]
    runsc do true # goes on alone where it begins yet
    before=$(runsc zygote status) # when it has begun
    runsc do true
    case "$(runsc zygote status)" in
        "$before") echo "not asked: $before" ;;
        "process $!, "*) echo "activated by its socket" ;;
        *) cat ~/activated; kill $! ;;
    esac
    runsc zygote stop
    wait $! || :
    rm "$socket"
}

complete() { # what shells offer
    python3 /scripts/typed.py bash -i
    fish -c 'complete --do-complete "runsc checkp"' | sed 's/\t.*//; s/^/fish: /'
    python3 /scripts/typed.py zsh -f -i
}

guest
quietly apt-get update
# what it depends on or speaks to is no part of it
quietly apt-get install -y --no-install-recommends python3 python3-venv systemd man-db bash-completion \
    fish zsh
mkdir -p -m 700 /run/user/1000
chown guest: /run/user/1000
traces >/tmp/before

quietly apt-get install -y /dist/runsc-python_*~deb"$(. /etc/os-release && echo "$VERSION_ID")"u*.deb
echo "installed $(dpkg-query -W -f '${Status}' runsc-python)"
run_everything runsc python3
as_guest run_everything runsc python3

python3 -m venv --system-site-packages /tmp/venv
echo "== its tests"
(run_its_tests /tmp/venv/bin/python)
rm -r /tmp/venv

for page in runsc containerd-shim-runsc-v1 $(runsc help | sed -n 's/^  \([a-z][a-z-]*\)  .*/runsc-\1/p'); do
    man "$page" >/tmp/page 2>/tmp/said || { echo "no page of $page"; cat /tmp/said; }
    grep -q "^SYNOPSIS" /tmp/page && [ ! -s /tmp/said ] || { echo "page of $page:"; cat /tmp/said; }
done
man -w runsc runsc-do
as_guest "$(declare -f complete); complete"

systemd-analyze --man=no verify runsc-zygote.socket runsc-zygote.service
XDG_RUNTIME_DIR=/run systemd-analyze --man=no --user verify runsc-zygote.socket runsc-zygote.service
runsc zygote stop
activated system
as_guest "$(declare -f activated); export XDG_RUNTIME_DIR=/run/user/1000; activated user"

as_guest "export XDG_RUNTIME_DIR=/run/user/1000; runsc zygote start"
runsc zygote start
quietly apt-get purge -y runsc-python
rm -r /tmp/runsc-1000 /run/user/1000/runsc # states of users are theirs
traces >/tmp/after
diff /tmp/before /tmp/after && echo "no trace"
