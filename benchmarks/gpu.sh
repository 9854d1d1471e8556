#!/usr/bin/env bash
# All that is measured on a GPU, in under 8 minutes, into one JSON:
#
#     benchmarks/gpu.sh [DEVICE [FILE]]        default: cuda gpu.json
#
# Images per second beside batched diffusers, plain and compiled, lite steps and peak memory at the
# sizes of Stable Diffusion 1.5 and XL with random weights in bfloat16; then a whole run with 8
# workers. `benchmarks/gpu.sh cpu` tries the same with tiny networks.
set -euo pipefail
device=${1:-cuda} file=${2:-gpu.json}
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
if [ "$device" != cpu ] && ! "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    echo "benchmarks/gpu.sh: there is no CUDA device here, so nothing is measured;" \
        "'benchmarks/gpu.sh cpu' tries it with tiny networks" >&2
    exit 1
fi
if [ "$device" = cpu ]; then
    sizes=(--size tiny --dtype float32 --images 2 --batch 2 --steps 1
        --tuning-batch 1 --tuning-steps 3 --repeats 1)
    suite=(-n 0 --tiny)
else
    sizes=(--size sd15 --size sdxl --dtype bfloat16 --images 8 --batch 8 --steps 20
        --tuning-batch 4 --tuning-steps 8 --repeats 2 --compile)
    suite=(-n 8)
fi
rm -f "$file"
"$python" benchmarks/speed.py sizes --device "$device" "${sizes[@]}" --json "$file"
"$python" benchmarks/speed.py suite --device "$device" --json "$file" "${suite[@]}"
