#!/usr/bin/env bash
# tools/check_style.sh - what review would otherwise have to look for: layers, sizes, formatting.
set -euo pipefail
cd "$(dirname "$0")/.."
bad=0

complain() {
    echo "$*"
    bad=1
}

if git rev-parse --git-dir >/dev/null 2>&1; then
    mapfile -t files < <(git ls-files -co --exclude-standard -- '*.c' '*.h' '*.cc' '*.cu' '*.cuh')
else # an unpacked archive
    mapfile -t files < <(find bench data host kernels model tests tools -name '*.[ch]' -o \
        -name '*.cc' -o -name '*.cu' -o -name '*.cuh')
fi

# Which folders a file of each floor may include from: its own and those below (README, "Where things
# are"). The rooms of host/ are floors too.
layer_of() {
    local below='model/ data/ kernels/'
    case $1 in
    tests/* | bench/* | tools/*) echo "tests/ bench/ tools/ host/ $below" ;;
    host/main.c | host/cmd/*) echo "host/cmd/ host/bench/ host/align/ host/report/ host/theory/ host/stage/ host/judge/ host/cli/ $below" ;;
    host/bench/*) echo "host/bench/ host/stage/ host/cli/ $below" ;;
    host/report/*) echo "host/report/ host/cli/ $below" ;;
    host/theory/*) echo "host/theory/ host/cli/ $below" ;;
    host/align/*) echo "host/align/ host/stage/ host/cli/ $below" ;;
    host/stage/*) echo "host/stage/ host/judge/ host/cli/ $below" ;;
    host/judge/*) echo "host/judge/ host/cli/ $below" ;;
    host/cli/*) echo "host/cli/ $below" ;;
    model/*) echo "$below" ;;
    data/base/*) echo 'data/base/ kernels/' ;;
    data/*) echo 'data/ kernels/' ;;
    kernels/*) echo 'kernels/' ;;
    *) echo "" ;;
    esac
}

for file in "${files[@]}"; do
    [ -n "$(layer_of "$file")" ] || complain "$file: outside the folders that hold code"
    read -r head <"$file"
    [[ $head == '/*'* || $head == //* ]] || complain "$file: begins without a line on what it is"
    lines=$(wc -l <"$file")
    [ "$lines" -le 500 ] || echo "warning: $file has $lines lines, 500 are enough"
    [ "$lines" -le 800 ] || complain "$file: $lines lines, 800 is the limit"
done

while IFS=: read -r file line text; do
    include=${text#*\"} include=${include%%\"*}
    for folder in $(layer_of "$file"); do
        [[ $include == "$folder"* ]] && continue 2
    done
    complain "$file:$line: includes \"$include\"; allowed are $(layer_of "$file")"
done < <(grep -nE '^ *# *include "' "${files[@]}")

# Which device runs is decided at run time: only kernels/ and the simulated device know of CUDA.
outside=$(printf '%s\n' "${files[@]}" | grep -vE '^(kernels|tests/simt)/')
while IFS= read -r hit; do
    complain "$hit: CUDA known outside kernels/"
done < <(xargs grep -nE '^ *# *(if|elif).*(CUDA|__NVCC__)|^ *# *include *<(cuda|cublas|cusolver|nccl|nvtx)' \
    <<<"$outside" || true)

# A time in a kernel's head says where it comes from: from a formula, or from a card that is named.
while IFS= read -r file; do
    sed '/\*\//q' "$file" | grep -q 'derived\|Derived\|measured on' ||
        complain "$file: times in its head; derived, or measured on what?"
done < <(grep -l 'H100' $(printf '%s\n' "${files[@]}" | grep '\.cu$'))

# Other versions of clang-format lay some lines out differently.
format=$(command -v clang-format-14 || command -v clang-format || true)
if [ -n "$format" ] && "$format" --version | grep -q 'version 14\.'; then
    while IFS= read -r file; do
        complain "$file: not as clang-format lays it out"
    done < <("$format" --dry-run "${files[@]}" 2>&1 | sed -n 's/:[0-9]*:[0-9]*: .*//p' | sort -u)
else
    echo "formatting was not checked: clang-format 14 is not here"
fi
[ $bad -ne 0 ] || echo "check_style: ${#files[@]} files ok"
exit $bad
