# bash, vim and less in a terminal of tmux: keys and screens, new sizes, job control.
until_true() {
    for i in {1..600}; do
        "$@" && return
        sleep 0.1
    done
    echo "never: $*"
    tmux capture-pane -p -t s
    exit 1
}
shows() { tmux capture-pane -p -t s | grep -qE -- "$1"; }
runs() { [ "$(tmux display-message -p -t s '#{pane_current_command}')" = "$1" ]; }
gone() { ! tmux has-session -t s 2>/dev/null; }
see() { until_true shows "$1"; }
keys() { tmux send-keys -t s "$@"; }

seq -f 'line %g' 200 >f
tmux -f /dev/null new-session -d -s s -x 80 -y 24 'PS1="ready> " exec bash --norc -i'
tmux set-option -g status off
see '^ready>'
keys 'stty size; echo $TERM' Enter
see '^24 80'
until_true runs bash

keys 'vim -u NONE -N f' Enter
see '^line 22'
keys '50Gdd' ':s/51/fifty-one/' Enter 'ochanged' Escape
see '^changed'
tmux capture-pane -p -t s | head -23 | sed 's/ *$//'
keys ':!echo from-the-shell' Enter
see '^from-the-shell'
keys Enter
see 'fifty-one'
keys ':wq' Enter
until_true runs bash
sed -n '49,52p' f

keys 'clear; less f' Enter
see '^line 23'
keys G
see '^line 200'
keys '?changed' Enter
see '^changed'
tmux capture-pane -p -t s | head -3
tmux resize-window -t s -x 60 -y 10
keys g
see '^line 9'
keys q
until_true runs bash
keys 'clear; stty size' Enter
see '^10 60'

keys 'clear; sleep 1000' Enter
until_true runs sleep
keys C-z
see Stopped
keys 'fg' Enter
until_true runs sleep
keys C-c
until_true runs bash
keys 'echo status $?' Enter
see '^status 130'
tmux split-window -t s 'exec cat'
until_true runs cat
tmux list-panes -t s -F '#{pane_width}x#{pane_height} #{pane_current_command}'
tmux kill-pane -t s.1
keys exit Enter
until_true gone
script -qec 'tty; stty -a | head -1' /dev/null </dev/null | tr -d '\r'
