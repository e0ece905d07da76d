#!/usr/bin/env bash
# test_readme.sh README BUILD - runs the README's marked code blocks literally, in order.
#
# A block is run when the line before its ```sh fence is "<!-- run -->". All blocks share one
# empty folder, in which `build` is the build tree and `tools` the tools, as in the checkout. The
# table of record forms must be the one that --help prints.
set -euo pipefail
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 # of a test's container

readme=$(realpath "$1") build=$(realpath "$2")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$build" "$work/build"
ln -s "$(dirname "$readme")/tools" "$work/tools"

awk '
    /^<!-- run -->$/          { marked = 1; next }
    /^```sh$/ && marked       { inside = 1; marked = 0; next }
    /^```$/ && inside         { inside = 0; next }
    inside                    { print }
    !/^```/ && !/^$/          { marked = 0 }
' "$readme" >"$work/blocks.sh"

count=$(grep -c . "$work/blocks.sh" || true)
if [ "$count" -eq 0 ]; then
    echo "test_readme: FAIL: $readme has no marked block"
    exit 1
fi
table=$("$build/sails" tokenize --help | sed -n '/^records (/,$p')
if [ -z "$table" ] || [[ $(<"$readme") != *"$table"* ]]; then
    echo "test_readme: FAIL: $readme has another table of records than --help"
    exit 1
fi
cd "$work"
if ! bash -euxo pipefail blocks.sh >log 2>&1; then
    tail -n 30 log
    echo "test_readme: FAIL"
    exit 1
fi
echo "test_readme: ok ($count lines of the README run)"
