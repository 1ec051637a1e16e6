#!/usr/bin/env bash
# One leg of stage 3 on a GPU that is at hand for minutes only; call it again to go on.
#
#   bash scripts/gpu_leg.sh SECONDS [--set KEY=VALUE ...]
#
# The run stops with a checkpoint after SECONDS and takes up from it at the next call. Needs no
# installation, only the dependencies: PYTHON names the interpreter, CONFIG another recipe.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:?"usage: bash scripts/gpu_leg.sh SECONDS [--set KEY=VALUE ...]"}
shift
export PYTHONPATH="src${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m panini.cli.main train restoration \
	--config "${CONFIG:-configs/restoration/mobile-mfr-gpu.yaml}" \
	--set "max_seconds=$seconds" "$@"
