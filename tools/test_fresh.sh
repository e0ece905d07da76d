#!/usr/bin/env bash
# tools/test_fresh.sh SUITE [OPTIONS] - does it all work on a machine that has nothing installed?
#
# Makes a minimal Debian of the release SUITE (bookworm, trixie) with debootstrap, clones into it the
# commit that is checked out here, and runs there what the README tells a new user to run.
#
#   --test           not only tools/quickstart.sh, but tools/test.sh as well
#   --user           as a user who has sudo, not as root
#   --cc gcc|clang   installs that compiler first, and builds with it
#   --anew           makes the minimal Debian again; it is kept in ~/.cache/sails/fresh otherwise
#
# Every line comes with the second in which it was printed; after the quickstart the seconds of its
# build. Needs root; debootstrap is installed if it is missing (tools/minimal_debian.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: tools/test_fresh.sh SUITE [--test] [--user] [--cc gcc|clang] [--anew]" >&2
    exit 2
}

SUITE=${1:-} USER_NAME=root HOME_FOLDER=/root COMPILER='' ANEW='' COMMANDS=quickstart
[[ $SUITE =~ ^[a-z]+$ ]] || usage
shift
while [ $# -gt 0 ]; do
    case $1 in
    --test) COMMANDS+=' test' ;;
    --user) USER_NAME=newcomer HOME_FOLDER=/home/newcomer ;;
    --cc) COMPILER=${2:-} && shift && [[ $COMPILER =~ ^(gcc|clang)$ ]] || usage ;;
    --anew) ANEW=anew ;;
    *) usage ;;
    esac
    shift
done
. tools/minimal_debian.sh

packages() { # those that a user has who has come this far
    echo git ca-certificates
    [ "$USER_NAME" = root ] || echo sudo
    case $COMPILER in
    gcc) echo gcc g++ ;;
    clang) echo clang libomp-dev ;;
    esac
}

inside() {
    as root "apt-get update -q && apt-get install -q -y --no-install-recommends $(echo $(packages))" \
        || die "apt-get failed in a fresh $SUITE"
    if [ "$USER_NAME" != root ]; then
        as root "useradd -m -s /bin/bash $USER_NAME"
        echo "$USER_NAME ALL=(ALL) NOPASSWD: ALL" >"$ROOT/etc/sudoers.d/$USER_NAME"
    fi
    git clone -q . "$ROOT$HOME_FOLDER/sails"
    as root "chown -R $USER_NAME: $HOME_FOLDER/sails"

    local choose='' command
    case $COMPILER in
    gcc) choose='CC=gcc CXX=g++' ;;
    clang) choose='CC=clang CXX=clang++' ;;
    esac
    for command in $COMMANDS; do
        as "$USER_NAME" "cd sails && $choose tools/$command.sh" ||
            die "tools/$command.sh failed in a fresh $SUITE"
        [ $command = test ] ||
            awk 'NR > 1 && $2 > ms { ms = $2 } END { print "the build took", ms / 1000, "seconds" }' \
                "$ROOT$HOME_FOLDER/sails/build/.ninja_log"
    done
}

copy_debian "$SUITE" $ANEW
copy_settings
export USER_NAME HOME_FOLDER COMPILER SUITE COMMANDS
beside_debian inside 2>&1 | while IFS= read -r line; do printf '%5d  %s\n' $SECONDS "$line"; done
echo "a fresh $SUITE passed: $COMMANDS"
