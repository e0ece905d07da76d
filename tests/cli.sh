# cli.sh - what tests of the program as its users meet it share: `sails` is its path, the folder that
# they are in is theirs.
failures=0
fail() { echo "FAIL: $*"; failures=$((failures + 1)); }

# bad CODE "words that the line must hold" ARGUMENTS...
bad() {
    local code=$1 words=$2 got
    shift 2
    "$sails" "$@" >out 2>err
    got=$?
    [ $got -eq "$code" ] || fail "sails $*: exit $got, expected $code: $(head -c 300 err)"
    [ "$(wc -l <err)" -eq 1 ] || fail "sails $*: expected one line on stderr: $(head -c 600 err)"
    grep -q '^sails: ' err || fail "sails $*: the line has no 'sails: ': $(cat err)"
    grep -qF -- "$words" err || fail "sails $*: expected '$words' in: $(cat err)"
    [ ! -s out ] || fail "sails $*: wrote to stdout"
}

# good ARGUMENTS...: exit 0 and a silent stderr; stdout is left in the file `out`
good() {
    "$sails" "$@" >out 2>err || fail "sails $*: exit $?: $(cat err)"
    [ ! -s err ] || fail "sails $*: wrote to stderr: $(cat err)"
}

has() { grep -qF -- "$1" out || fail "expected '$1' on stdout, got: $(head -c 300 out)"; }
