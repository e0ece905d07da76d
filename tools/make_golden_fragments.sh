#!/usr/bin/env bash
# tools/make_golden_fragments.sh - writes tests/golden/fragments.txt: the register layouts of mma and
# ldmatrix by CUTLASS's traits. Its headers come from PyPI; the CUDA toolkit's must be there.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check --no-deps nvidia-cutlass==4.2.0.0
headers=$(echo "$folder"/venv/lib/python3*/site-packages/cutlass_library/source/include)
cuda=${SAILS_CUDA_ROOT:-$(dirname "$(dirname "$(command -v nvcc)")")}/include
c++ -std=c++17 -O1 -w -I "$headers" -isystem "$cuda" -isystem "$cuda/cccl" \
    tools/fragment_layouts.cc -o "$folder/layouts"
"$folder/layouts" >tests/golden/fragments.txt
