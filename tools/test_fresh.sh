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
# build. Mirror, proxy and index are those of this machine's apt and pip. Needs root; debootstrap is
# installed if it is missing. What is mounted and started has namespaces of its own and ends with
# the script.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    echo "sails: tools/test_fresh.sh: $*" >&2
    exit 1
}
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
    --anew) ANEW=1 ;;
    *) usage ;;
    esac
    shift
done
[ "$(id -u)" -eq 0 ] || die "needs root, for debootstrap and chroot"

CACHE=$HOME/.cache/sails/fresh
BASE=$CACHE/$SUITE
ROOT=$CACHE/$SUITE-$$ # this run's copy

# "URI release" of each of Debian's parts that this machine installs from.
debian_sources() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' \
        'Component: main' 'Origin: Debian' | sort -u
}

make_base() {
    command -v debootstrap >/dev/null || apt-get install -q -y --no-install-recommends debootstrap
    local own mirror uri release
    own=$(. /etc/os-release && echo "$VERSION_CODENAME")
    [ -n "$(debian_sources)" ] || apt-get update -q
    mirror=$(debian_sources | awk -v own="$own" '$2 == own { print $1; exit }')
    [ -n "$mirror" ] || die "expected a Debian mirror among this machine's apt sources"
    rm -rf "$BASE" "$BASE.part"
    debootstrap --variant=minbase "$SUITE" "$BASE.part" "$mirror" || die "debootstrap failed"
    debian_sources | while read -r uri release; do
        echo "deb $uri ${release/$own/$SUITE} main"
    done >"$BASE.part/etc/apt/sources.list"
    mv "$BASE.part" "$BASE"
}

# How this machine reaches mirrors and indices: settings of apt and pip, certificates, names.
copy_settings() {
    local file
    for file in $(grep -lis '^ *acquire' /etc/apt/apt.conf /etc/apt/apt.conf.d/* || true) \
        /etc/pip.conf /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt \
        /usr/local/share/ca-certificates; do
        [ ! -e "$file" ] || (cd / && cp -rL --parents "${file#/}" "$ROOT")
    done
}

# Inside: a shell command, run as root or as the user in the copy.
as() { # USER COMMAND
    local home=/root settings
    [ "$1" = root ] || home=$HOME_FOLDER
    mapfile -t settings < <(env | grep -iE '^(pip_[a-z_]*|ssl_cert_[a-z]*|[a-z]*_proxy)=' || true)
    chroot --userspec="$1:$1" "$ROOT" env -i HOME="$home" USER="$1" LANG=C.UTF-8 TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${settings[@]}" \
        bash -c "cd && $2"
}

packages() { # those that a user has who has come this far
    echo git ca-certificates
    [ "$USER_NAME" = root ] || echo sudo
    case $COMPILER in
    gcc) echo gcc g++ ;;
    clang) echo clang libomp-dev ;;
    esac
}

inside() {
    mount -t proc proc "$ROOT/proc"
    mount --rbind /sys "$ROOT/sys"
    mount --rbind /dev "$ROOT/dev"
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

mkdir -p "$CACHE"
[ -d "$BASE" ] && [ -z "$ANEW" ] || make_base
trap 'rm -rf --one-file-system "$ROOT"' EXIT
cp -a "$BASE" "$ROOT"
copy_settings
export USER_NAME HOME_FOLDER COMPILER SUITE ROOT COMMANDS
export -f die as packages inside
unshare --mount --pid --fork --kill-child bash -euo pipefail -c inside 2>&1 |
    while IFS= read -r line; do printf '%5d  %s\n' $SECONDS "$line"; done
echo "a fresh $SUITE passed: $COMMANDS"
