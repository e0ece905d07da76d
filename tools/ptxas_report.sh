#!/usr/bin/env bash
# tools/ptxas_report.sh [PLUGIN] - what the compiler made of every CUDA kernel, for each generation.
#
# PLUGIN is build/libsails_cuda.so unless given. Prints registers and shared memory of each kernel,
# and how full of warps that lets a processor of the GPU be (occupancy, with the largest block that
# the launch bounds allow). Exits 1 if one spills registers, or is not the code that
# tests/kernels.txt says it should be: 16-byte accesses, tensor cores; or if all code of a generation
# is more than the memory plan counts. Needs cuobjdump and nvdisasm:
# tools/install.sh test. No GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
PLUGIN=${1:-build/libsails_cuda.so}
for folder in "${SAILS_CUDA_ROOT:-/usr/local/cuda}/bin" \
    "$HOME"/.cache/sails/wheels/lib/python3*/site-packages/nvidia/cu13/bin; do
    PATH=$PATH:$folder
done
for tool in cuobjdump nvdisasm c++filt; do
    command -v $tool >/dev/null || { echo "ptxas_report: no $tool; run tools/install.sh test" && exit 2; }
done
[ -e "$PLUGIN" ] || { echo "ptxas_report: no $PLUGIN; build it with -DSAILS_CUDA=ON" && exit 2; }
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT

# "arch kernel registers stack shared" by resource usage; "kernel threads" by launch bounds;
# "arch kernel" with the accesses and products that we look for.
cuobjdump -res-usage "$PLUGIN" 2>&1 | awk '
    $1 == "arch" { arch = $3 }
    $1 == "Function" { kernel = $2; sub(/:$/, "", kernel) }
    $1 ~ /^REG:/ {
        n = split($0, a, /[: ]+/)
        for (i = 1; i < n; i++) value[a[i]] = a[i + 1]
        print arch, kernel, value["REG"], value["STACK"] + value["LOCAL"], value["SHARED"]
    }' >"$FOLDER/resources"
cuobjdump -elf -arch sm_80 "$PLUGIN" | awk '
    /^\.nv\.info\._Z/ { kernel = substr($1, 10) }
    /EIATTR_MAX_THREADS/ { wanted = 1 }
    wanted && $1 == "Value:" { print kernel, $2; wanted = 0 }' |
    while read -r kernel threads; do echo "$kernel $((threads))"; done >"$FOLDER/threads"
cuobjdump -sass "$PLUGIN" | awk '
    /code for sm_/ { arch = $3 }
    $1 == "Function" { kernel = $3 }
    / (LDG|LDGSTS)\.E[A-Z0-9.]*\.128/ { print arch, kernel, "load16" }
    / STG\.E[A-Z0-9.]*\.128/ { print arch, kernel, "store16" }
    / HMMA\./ { print arch, kernel, "hmma" }' | sort -u >"$FOLDER/sass"
cut -d' ' -f2 "$FOLDER/resources" | sort -u >"$FOLDER/mangled"
c++filt <"$FOLDER/mangled" | sed -E 's/^void //; s/\(anonymous namespace\):://; s/\(.*//' |
    paste -d'|' "$FOLDER/mangled" - >"$FOLDER/names"

# One line of the table per kernel and generation.
awk -v folder="$FOLDER" '
    function complain(text) { print "ptxas_report: " text >"/dev/stderr"; bad = 1 }
    function ceil_to(x, unit) { return int((x + unit - 1) / unit) * unit }

    # Warps at once over the most that fit, from the CUDA C++ Programming Guide, "Compute
    # Capabilities": registers go to warps in units of 256, to four warps at a time; shared memory
    # in units of 128 bytes, and 1 KB of each block is taken: "shared" counts it where it is not 0,
    # except on sm_80.
    function occupancy(arch, threads, registers, shared, dynamic,    warps, blocks, fits) {
        warps = ceil_to(threads, 32) / 32
        blocks = int(64 / warps)
        if (blocks > 32) blocks = 32
        fits = int(int(65536 / ceil_to(registers * 32, 256) / 4) * 4 / warps)
        if (fits < blocks) blocks = fits
        shared = ceil_to(shared + dynamic, 128) + (arch == "sm_80" || !shared ? 1024 : 0)
        fits = int((arch == "sm_80" ? 164 : 228) * 1024 / shared)
        if (fits < blocks) blocks = fits
        return blocks * warps / 64
    }
    function find_row(name,    i, found) {
        for (i = 1; i <= rows; i++)
            if (name ~ ("^" pattern[i] "$")) { found = i; matched[i]++; break }
        return found
    }

    FILENAME ~ /kernels.txt$/ {
        if ($0 ~ /^ *(#|$)/) next
        split($0, field, / +[|]( +|$)/)
        pattern[++rows] = field[1]; dynamic[rows] = field[2]; expects[rows] = " " field[3] " "
        next
    }
    FILENAME ~ /names$/ { split($0, field, "|"); name[field[1]] = field[2]; next }
    FILENAME ~ /threads$/ { threads[$1] = $2; next }
    FILENAME ~ /sass$/ { has[$1, $2, $3] = 1; next }
    {
        arch = $1; k = $2; label = name[k] " on " arch
        row = find_row(name[k])
        if (!row) { complain(label ": no line of tests/kernels.txt is about it"); next }
        if (!threads[k]) { complain(label ": no __launch_bounds__"); next }
        if ($4 > 0 && expects[row] !~ / stack /)
            complain(label ": " $4 " bytes of stack: registers spill, or an array is indexed")
        n = split("load16 store16 hmma", wanted, " ")
        for (i = 1; i <= n; i++)
            if (index(expects[row], " " wanted[i] " ") && !has[arch, k, wanted[i]])
                complain(label ": expected " wanted[i])
        if (n = occupancy(arch, threads[k], $3, $5, dynamic[row]))
            printf "%-44s %-7s %7d %9d %6d %7d %7d %10.0f\n", name[k], arch, threads[k], $3, $4, $5,
                   dynamic[row], 100 * n | "sort"
        else
            complain(label ": not a single block fits")
    }
    END {
        close("sort")
        for (i = 1; i <= rows; i++)
            if (!matched[i]) complain("tests/kernels.txt: no kernel is called " pattern[i])
        exit bad
    }' tests/kernels.txt "$FOLDER/names" "$FOLDER/threads" "$FOLDER/sass" "$FOLDER/resources" \
    >"$FOLDER/table" || status=$?
printf '%-44s %-7s %7s %9s %6s %7s %7s %10s\n' kernel arch threads registers stack shared dynamic \
    'occupancy %'
cat "$FOLDER/table"

# Code is loaded as it is called: sails plan counts all that a generation has, debug lines included.
most=$(($(sed -n 's/.*LAZY_KERNEL_BYTES = \([^,]*\),.*/\1/p' kernels/cuda_memory.h)))
PLUGIN=$(realpath "$PLUGIN")
(cd "$FOLDER" && cuobjdump -xelf all "$PLUGIN" >/dev/null)
for arch in $(cut -d' ' -f1 "$FOLDER/resources" | sort -u); do
    bytes=$(cat "$FOLDER"/*".$arch.cubin" | wc -c)
    echo "code of $arch: $bytes bytes, of $most that are planned for"
    [ "$bytes" -gt 0 ] && [ "$bytes" -le "$most" ] ||
        { echo "ptxas_report: expected at most LAZY_KERNEL_BYTES" >&2 && status=1; }
done
exit "${status:-0}"
