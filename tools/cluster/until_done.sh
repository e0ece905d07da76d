#!/usr/bin/env bash
# until_done.sh [CRASHES] COMMAND... - runs COMMAND again until it is done.
#
#   tools/cluster/until_done.sh tools/cluster/node.sh sails train recipe.yaml \
#       --checkpoint-minutes 20 --resume
#
# COMMAND's code  7    stopped with its state saved: again, as often as it takes
#                 5    a rank failed; 137, 138, 143: killed by KILL, USR1 or TERM: again, at most
#                      CRASHES times (3 unless given)
#                 else the end, with this code: 0 done, 2 usage, 3 input, 4 memory, 6 numbers ..
#
# TERM and USR1 go to COMMAND, which is then not run again: whoever sends them to this script wants
# the machine. To have COMMAND alone saved and started anew, signal node.sh or sails itself.
set -u
crashes=3
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    crashes=$1
    shift
fi
[ $# -gt 0 ] || { echo "usage: until_done.sh [CRASHES] COMMAND..." >&2 && exit 2; }

pid='' last='' missed='' code=143 # COMMAND's; TERM's, should that come before it was run
stop() { # SIGNAL
    last=$1 signalled=yes
    kill -"$1" "$pid" 2>/dev/null || missed=yes
}
trap 'stop TERM' TERM
trap 'stop USR1' USR1

run() { # COMMAND...: leaves its code in `code`
    [ -z "$last" ] || return
    "$@" &
    pid=$!
    if [ "$missed" ]; then # before there was a $pid; COMMAND needs a moment until it takes it
        sleep 1
        kill -"$last" "$pid" 2>/dev/null
    fi
    signalled=yes
    while [ $signalled ]; do # a signal ends `wait`, not COMMAND
        signalled=''
        wait $pid
        code=$?
    done
    pid=''
}

while :; do
    run "$@"
    [ -z $last ] || exit "$code"
    case $code in
    7) echo "until_done: stopped and saved: going on" >&2 ;;
    5 | 137 | 138 | 143)
        [ $crashes -gt 0 ] || exit "$code"
        crashes=$((crashes - 1))
        echo "until_done: exit $code: going on; $crashes more are allowed" >&2
        ;;
    *) exit "$code" ;;
    esac
done
