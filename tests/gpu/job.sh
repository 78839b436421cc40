#!/usr/bin/env bash
# Everything that wants a GPU, in one job that may be cut off and started again: what is recorded
# already is not done twice. Needs PyTorch's CUDA build; nothing is downloaded but what is missing.
#
#   OUT=folder bash tests/gpu/job.sh            all of it
#   OUT=folder bash tests/gpu/job.sh study      one part: test, bench, study or agreement
#
# Into $OUT go the table, metrics and manifest of the study, the benchmark's numbers, and the
# tables of a small study on CPU and GPU. RESULTS (default: results) keeps the records, 6 GB.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${OUT:?name a folder for what the job brings back}"
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-results}
parts=${1:-"test bench study agreement"}
mkdir -p "$OUT"

# The package may be installed or not: from a checkout it runs as it is.
swabench() { "$PYTHON" -m swabench "$@"; }
keep() { # study, results folder, name under $OUT
    mkdir -p "$OUT/$3"
    for file in table.csv table.md table.tex metrics.csv manifest.json; do
        if [ -f "$2/$1/$file" ]; then cp "$2/$1/$file" "$OUT/$3/"; fi
    done
}

for part in $parts; do
    case $part in
    test)
        "$PYTHON" -m pytest tests/test_network.py -rs | tee "$OUT/test.txt"
        ;;
    bench)
        "$PYTHON" -m tests.bench.network --device cuda --output "$OUT/bench/network-cuda.json"
        ;;
    study)
        # A study cut off in the middle leaves its finished runs; the table says what is missing.
        trap 'swabench table --config network --results "$RESULTS" || true; keep network "$RESULTS" network' EXIT
        swabench reproduce --config network --results "$RESULTS" --device cuda
        ;;
    agreement)
        for device in cpu cuda; do
            swabench reproduce --config tests/gpu/agreement.yaml --results "$RESULTS/$device" \
                --device "$device"
            keep agreement "$RESULTS/$device" "agreement-$device"
        done
        ;;
    *)
        echo "no part is called $part; there are test, bench, study, agreement" >&2
        exit 2
        ;;
    esac
done
