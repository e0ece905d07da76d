#!/usr/bin/env bash
# tools/quickstart.sh [FOLDER] - installs, builds, and aligns the bundled planted world: a small
# checkpoint, its SAEs and data, made on the spot. Ends with the table of base, LoRA and SAILS.
# Results stay in FOLDER (default run-quickstart).
set -euo pipefail
cd "$(dirname "$0")/.."
OUT=${1:-run-quickstart}

tools/install.sh run
cmake --preset release
cmake --build build --target sails planted_world
build/tools/planted_world "$OUT"
build/sails align "$OUT/recipe.yaml"
