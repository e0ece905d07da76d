# Sourced by scripts that try sails in a Debian that has nothing installed: makes one of the release
# SUITE with debootstrap, and runs commands in a copy of it, which ends with the script.
#
# Mirror, proxy and index are those of this machine's apt and pip. What is mounted and started has
# namespaces of its own and ends with the script, too.

die() {
    echo "sails: $0: $*" >&2
    exit 1
}
[ "$(id -u)" -eq 0 ] || die "needs root, for debootstrap and chroot: run it with sudo"

FRESH=$HOME/.cache/sails/fresh # minimal Debians are kept here

# "URI release" of each of Debian's parts that this machine installs from.
debian_sources() {
    apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 'Created-By: Packages' \
        'Component: main' 'Origin: Debian' | sort -u
}
own_suite() {
    . /etc/os-release && echo "$VERSION_CODENAME"
}

make_base() { # SUITE
    command -v debootstrap >/dev/null || apt-get install -q -y --no-install-recommends debootstrap
    local base=$FRESH/$1 own mirror uri release
    own=$(own_suite)
    [ -n "$(debian_sources)" ] || apt-get update -q
    mirror=$(debian_sources | awk -v own="$own" '$2 == own { print $1; exit }')
    [ -n "$mirror" ] || die "expected a Debian mirror among this machine's apt sources"
    rm -rf "$base" "$base.part"
    debootstrap --variant=minbase "$1" "$base.part" "$mirror" || die "debootstrap failed"
    debian_sources | while read -r uri release; do
        echo "deb $uri ${release/$own/$1} main"
    done >"$base.part/etc/apt/sources.list"
    mv "$base.part" "$base"
}

# A copy for this run, in $ROOT; `anew` makes what it is copied from again.
copy_debian() { # SUITE [anew]
    mkdir -p "$FRESH"
    [ -d "$FRESH/$1" ] && [ -z "${2:-}" ] || make_base "$1"
    export ROOT=$FRESH/$1-$$
    trap 'rm -rf --one-file-system "$ROOT"' EXIT
    cp -a "$FRESH/$1" "$ROOT"
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

# Runs a function of the script beside the mounted copy; of variables it sees those exported.
beside_debian() { # FUNCTION
    unshare --mount --pid --fork --kill-child bash -euo pipefail -c "$(declare -f)
        mount -t proc proc '$ROOT/proc'
        mount --rbind /sys '$ROOT/sys'
        mount --rbind /dev '$ROOT/dev'
        $1" "$0"
}

# Inside: a shell command, run as root or as another user of the copy, in the user's home.
as() { # USER COMMAND
    local home settings
    home=$(awk -F: -v user="$1" '$1 == user { print $6 }' "$ROOT/etc/passwd")
    mapfile -t settings < <(env | grep -iE '^(pip_[a-z_]*|ssl_cert_[a-z]*|[a-z]*_proxy)=' || true)
    chroot --userspec="$1:$1" "$ROOT" env -i HOME="$home" USER="$1" LANG=C.UTF-8 TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${settings[@]}" \
        bash -c "cd && $2"
}
