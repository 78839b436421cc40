#!/usr/bin/env bash
# Everything that wants a GPU, in calls of a few minutes that go on where the last one stopped.
# Needs torch and torchvision with CUDA, and this package's other dependencies; no network, no
# virtual environment, nothing installed: it runs from the checkout.
#
#   OUT=folder bash tests/gpu/job.sh                     what the time allows of all parts
#   OUT=folder LIMIT=540 bash tests/gpu/job.sh study     one part, or several in quotes
#
# The parts: `test` (tests/test_gpu.py), `agreement` (a small study on the CPU and on the GPU),
# `kernels` and `bench` (where a step's time goes, and how fast it is beside others), `heads`
# (the study `mnist`), `study` (the whole network) and `transfer` (that study with its source, its
# landscape and its documents). `study` and `transfer` go on from call to call, the others run once.
# SWABENCH_CACHE must hold the data sets where they cannot be fetched.
# RESULTS (results/gpu/runs, which git ignores) keeps the records between calls; the weights that
# `transfer` keeps take 25 GB. Into $OUT goes one archive: tables, metrics, manifests, the
# benchmark's numbers and the logs; and the records of every seed of `study`.
#
# A rehearsal without a GPU:
#   DEVICE=cpu STUDY=smoke HEADS=smoke WHOLE=smoke SEEDS=2 STAGES="1 2" OUT=... \
#       bash tests/gpu/job.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${OUT:?name a folder for what the job brings back}"
PYTHON=${PYTHON:-python3}
RESULTS=${RESULTS:-results/gpu/runs}
DEVICE=${DEVICE:-cuda}
STUDY=${STUDY:-tests/gpu/network.yaml}
HEADS=${HEADS:-mnist}
WHOLE=${WHOLE:-transfer}
SEEDS=${SEEDS:-5}
STAGES=${STAGES:-"5 10"} # seeds of the study that is carried out whole
LIMIT=${LIMIT:-540} # seconds that a call may take
PROCESSES=${PROCESSES:-2}
PACKING=${PACKING:-20} # seconds that are left for it
parts=${1:-"test agreement kernels bench heads study transfer"}

kept=$RESULTS/kept # what goes into the archive
mkdir -p "$OUT" "$kept"
export PYTHONUNBUFFERED=1
began=$SECONDS

swabench() { "$PYTHON" -m swabench "$@"; }
left() { echo $((LIMIT - (SECONDS - began))); }

keep() { # study, its results folder, name in the archive
    mkdir -p "$kept/$3"
    find "$2/$1" -maxdepth 1 -type f -exec cp {} "$kept/$3/" \;
    if [ -d "$2/$1/figures" ]; then cp -r "$2/$1/figures" "$kept/$3/"; fi
}

archive() { tar -czf "$OUT/gpu.tar.gz" -C "$kept" .; }
trap archive EXIT # also where a part fails or the time is up
trap 'exit 143' TERM

once() { # name, seconds it may take, command: done is done
    if [ -e "$kept/$1.done" ]; then return; fi
    if [ "$(left)" -lt "$2" ]; then
        echo "$1: not begun, $(left) s are left"
        return
    fi
    echo "$1"
    local start=$SECONDS
    "${@:3}" >"$kept/$1.log" 2>&1 & # a signal is heard while the shell waits
    if wait $!; then
        touch "$kept/$1.done"
        echo "$1: done in $((SECONDS - start)) s"
    else
        echo "$1: failed, see $1.log"
        tail -n 20 "$kept/$1.log"
    fi
}

# Each device has a cache of features of its own, or both would work with the first one's.
agreement() {
    for device in cpu "$DEVICE"; do
        local cache=${SWABENCH_CACHE:-$HOME/.cache/swabench} own=$RESULTS/cache-$device
        mkdir -p "$own"
        if [ -d "$cache/mnist" ] && [ ! -e "$own/mnist" ]; then cp -r "$cache/mnist" "$own/"; fi
        SWABENCH_CACHE=$own swabench reproduce --config tests/gpu/agreement.yaml \
            --results "$RESULTS/agreement-$device" --device "$device"
        keep agreement "$RESULTS/agreement-$device" "agreement-$device"
    done
}

suite() { "$PYTHON" -m pytest tests/test_gpu.py -q -rsP --durations=10 -p no:cacheprovider; }

kernels() {
    mkdir -p "$kept/bench"
    "$PYTHON" -m tests.gpu.kernels --device "$DEVICE" --output "$kept/bench/kernels.json"
}

bench() {
    mkdir -p "$kept/bench"
    "$PYTHON" -m tests.bench.network --device "$DEVICE" --batches 100 \
        --output "$kept/bench/network-$DEVICE.json"
}

heads() {
    swabench finetune --config "$HEADS" --method all --results "$RESULTS" --device "$DEVICE"
    local document
    for document in table figures claims report; do
        swabench "$document" --config "$HEADS" --results "$RESULTS"
    done
    keep "$HEADS" "$RESULTS" "$HEADS-$DEVICE"
}

# All of a study, first for few seeds: where the time is up before the last, what comes home is
# the documents of fewer, and they are whole.
transfer() {
    local name seeds
    name=$(basename "$WHOLE" .yaml)
    for seeds in $STAGES; do
        if timeout --signal KILL $(($(left) - PACKING)) "$PYTHON" -m swabench reproduce \
            --config "$WHOLE" --seeds "$seeds" --jobs "$PROCESSES" --save-every 1h \
            --results "$RESULTS" --device "$DEVICE" >>"$kept/$name.log" 2>&1; then
            keep "$name" "$RESULTS" "$name-$DEVICE"
            echo "$name: $seeds seeds are done"
        fi
    done
    tail -n 20 "$kept/$name.log"
}

# As many seeds as the time allows, shared out among processes: while one measures, others train.
# Their records come home without weights; tables and figures are made from them there. Where the
# machine goes back no states are kept: writing them takes time from all.
study() {
    local time=$(($(left) - PACKING)) number name seed
    name=$(basename "$STUDY" .yaml)
    for ((number = 1; number <= PROCESSES; number++)); do
        timeout --signal KILL "$time" "$PYTHON" -m swabench finetune --config "$STUDY" \
            --method all --seeds "$SEEDS" --shard "$number/$PROCESSES" --save-every 1h \
            --results "$RESULTS" --device "$DEVICE" >>"$kept/study-$number.log" 2>&1 &
    done
    wait
    tail -n 4 "$kept"/study-*.log
    rm -rf "$RESULTS/light"
    cp -r "$RESULTS/$name" "$RESULTS/light"
    "$PYTHON" -m tests.gpu.lighten "$RESULTS/light"
    for ((seed = 0; seed < SEEDS; seed++)); do
        (cd "$RESULTS/light" && tar -czf "$OUT/$name-seed-$seed.tar.gz" runs/*/seed-$seed-*) || true
    done
    rm -r "$RESULTS/light"
}

for part in $parts; do
    case $part in
    test) once test 60 suite ;;
    agreement) once agreement 45 agreement ;;
    kernels) once kernels 45 kernels ;;
    bench) once bench 90 bench ;;
    heads) once heads 60 heads ;;
    study) study ;;
    transfer) transfer ;;
    *)
        echo "no part is called $part; there are test, agreement, kernels, bench, heads, study, transfer" >&2
        exit 2
        ;;
    esac
done
