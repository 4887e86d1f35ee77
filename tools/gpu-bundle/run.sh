#!/usr/bin/env bash
# run.sh STAGE [--seconds N] [--out DIR] [--target cuda|simt]: one stage of the bundle, stopped in time.
#
#   build      the native library for this machine's own GPU, and the fragment test on the hardware
#   test       every kernel case, the golden models, then whole grids of other projects' sizes
#   sanitize   a case for every kernel under memcheck, racecheck, initcheck, synccheck
#   generate   text from each model that the bundle carries
#   bench      kernels from a flushed L2 beside a measured read peak, then whole models with random weights of true sizes
#   all        these, in this order, each with its share of the time
#
# What is done is remembered: the same call goes on where the last one stopped. Results: at most eight files in DIR.
# --target simt runs the same on the CPU, so that the bundle cannot rot where there is no GPU.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=${1:-all}; shift || true
seconds=600 out=$here/results target=cuda
while [[ $# -gt 0 ]]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --out) out=$2; shift 2 ;;
    --target) target=$2; shift 2 ;;
    *) echo "run.sh: unknown option '$1'" >&2; exit 2 ;;
  esac
done
mkdir -p "$out" "$here/state"
out=$(cd "$out" && pwd)
if [[ ! -e $here/bin/.unpacked ]]; then
  (cd "$here" && cmake -E tar xf bin.tar.xz && touch bin/.unpacked) || { echo "run.sh: bin.tar.xz cannot be unpacked: it takes CMake" >&2; exit 1; }
fi
end=$((SECONDS + seconds))
left() { echo $((end - SECONDS)); }
out_of_time() { (( $(left) < ${1:-5} )); }
finished() { [[ -e $here/state/$target-$1 ]]; }
finish() { touch "$here/state/$target-$1"; }
export SLUICE_SHARED=$here/shared SLUICE_SHARED_PARTIAL=1 DOTNET_TieredPGO=0
targets=$target; [[ $target == simt ]] && targets=simt/1
log() { printf '[%4ds] %s\n' $SECONDS "$*" | tee -a "$out/log.txt"; }

machine() {
  { echo "commit $(cat "$here/COMMIT")"; date -u +%F; uname -srm; nproc
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv,noheader 2>/dev/null
    nvcc --version 2>/dev/null | tail -n 2; } > "$out/machine.txt"
}

build() {
  finished build && return 0
  local options=(-DSL_CUDA=OFF -DSL_WITH_SIMT=ON)
  if [[ $target == cuda ]]; then
    local cc; cc=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)
    options=(-DSL_CUDA=ON -DSL_WITH_SIMT=OFF "-DCMAKE_CUDA_ARCHITECTURES=${cc:-90}")
  fi
  log "build ${options[*]}"
  local generator=(); command -v ninja >/dev/null && generator=(-G Ninja)
  timeout "$(left)" cmake -S "$here/native" -B "$here/build-$target" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release "${options[@]}" >"$out/build.txt" 2>&1 &&
    timeout "$(left)" cmake --build "$here/build-$target" --parallel >>"$out/build.txt" 2>&1
  local status=$?
  if [[ $status != 0 ]]; then log "build FAILED ($status)"; tail -n 40 "$out/build.txt"; return 1; fi
  cp "$here/build-$target/libsluice.so" "$here/bin/libsluice.so"
  local fragments
  for fragments in "$here/build-$target"/cuda/tests/fragment_test "$here/build-$target"/tests/simt_fragment_test; do
    [[ -x $fragments ]] || continue
    if "$fragments" >>"$out/build.txt" 2>&1; then log "$(basename "$fragments"): $(tail -n 1 "$out/build.txt")"; else log "$(basename "$fragments") FAILED"; tail -n 20 "$out/build.txt"; fi
  done
  finish build
}

# A case for every kernel, and ops.txt: all ops that have cases.
cases() {
  [[ -s $here/cases/ops.txt ]] && return 0
  SLUICE_CASES=representatives SLUICE_CASE_DIR=$here/cases timeout "$(left)" "$here/bin/Sluice.Tests" -method '*Cases_can_be_written*' -noLogo -noColor >"$here/state/output" 2>&1
  [[ -s $here/cases/ops.txt ]] || { log "the list of ops FAILED"; tail -n 20 "$here/state/output"; return 1; }
}

tests() {
  local op line
  cases || return 1
  for op in $(<"$here/cases/ops.txt"); do
    finished "test-$op" && continue
    out_of_time 10 && { log "test: out of time before $op"; return 1; }
    SLUICE_OPS=$op SLUICE_TARGETS=$targets timeout "$(left)" "$here/bin/Sluice.Tests" -method '*Op_is_as_close*' -noLogo -noColor >"$here/state/output" 2>&1
    local status=$?
    [[ $status == 124 ]] && { log "test: out of time in $op"; return 1; }
    line=$(grep -E 'Total:' "$here/state/output" | tail -n 1 | sed 's/^ *//')
    log "test $op: ${line:-exit code $status}"
    { echo "== $op"; grep -A4 '\[FAIL\]' "$here/state/output" | head -n 200; } >> "$out/test.txt"
    [[ -n $line ]] && finish "test-$op"
  done
  goldens && grid
}

goldens() {
  finished test-golden && return 0
  out_of_time 10 && return 1
  local filter='*Cuda_generates*'; [[ $target == simt ]] && filter='*Simt_generates*'
  timeout "$(left)" "$here/bin/Sluice.Tests" -method "$filter" -noLogo -noColor >"$here/state/output" 2>&1
  log "test goldens: $(grep -E 'Total:' "$here/state/output" | tail -n 1 | sed 's/^ *//')"
  { echo "== goldens"; grep -A4 '\[FAIL\]' "$here/state/output"; } >> "$out/test.txt"
  finish test-golden
}

# Cases that were right are not run again; on simt a few seconds' worth.
grid() {
  finished test-grid && return 0
  out_of_time 30 && { log "test: out of time before the grid"; return 1; }
  local most=$(( $(left) * 2 / 3 )) line
  [[ $target == simt ]] && most=5
  SLUICE_GRID=1 SLUICE_GRID_SECONDS=$most SLUICE_GRID_DONE=$here/state/grid-$target SLUICE_TARGETS=$targets \
    timeout "$(left)" "$here/bin/Sluice.Tests" -method '*Grid_is_as_close*' -noLogo -noColor -showLiveOutput >"$here/state/output" 2>&1
  line=$(grep -oE 'grid on .*' "$here/state/output" | tail -n 1)
  log "test ${line:-grid: stopped}; $(grep -E 'Total:' "$here/state/output" | tail -n 1 | sed 's/^ *//')"
  { echo "== grid"; grep -A44 '\[FAIL\]' "$here/state/output"; } >> "$out/test.txt"
  if [[ $target == simt ]] || [[ $line == *' 0 not begun'* ]]; then finish test-grid; fi
}

sanitize() {
  if ! command -v compute-sanitizer >/dev/null; then log "sanitize: no compute-sanitizer here, skipped"; return 0; fi
  cases || return 1
  local tool op case
  for tool in memcheck racecheck initcheck synccheck; do
    for case in "$here"/cases/*.case; do
      op=$(basename "$case" .case)
      finished "sanitize-$tool-$op" && continue
      out_of_time 20 && { log "sanitize: out of time before $tool $op"; return 1; }
      if timeout "$(left)" compute-sanitizer --tool $tool --error-exitcode 9 "$here/build-$target/tests/sluice_replay" --backend cuda "$case" >"$here/state/output" 2>&1; then
        log "sanitize $tool $op: clean"
      else
        log "sanitize $tool $op: FAILED"
        { echo "== $tool $op"; head -n 60 "$here/state/output"; } >> "$out/test.txt"
      fi
      finish "sanitize-$tool-$op"
    done
  done
}

generate() {
  local model
  for model in "$here"/shared/models/*/*.gguf; do
    [[ -e $model ]] || continue
    finished "generate-$(basename "$model")" && continue
    out_of_time 10 && { log "generate: out of time"; return 1; }
    [[ $target == simt && $model != *stories260K-f32* ]] && continue
    local tokens=100; [[ $target == simt ]] && tokens=4
    if timeout "$(left)" "$here/bin/sluice" generate "$model" --prompt "Once upon a time" --max-tokens $tokens --device $target --json >>"$out/generate.json" 2>"$here/state/output"; then
      log "generate $(basename "$model"): ok"
    else
      log "generate $(basename "$model"): FAILED: $(tail -n 1 "$here/state/output")"
    fi
    finish "generate-$(basename "$model")"
  done
}

bench() {
  if ! finished bench-ops; then
    out_of_time 10 && return 1
    local large=--large; [[ $target == simt ]] && large=
    SLUICE_OPS=$([[ $target == simt ]] && echo rms_norm) timeout "$(left)" "$here/bin/Sluice.Perf" ops $targets $large >>"$out/bench.json" 2>"$here/state/output"
    local status=$?
    log "bench ops: $(grep -c . "$out/bench.json") rows (exit code $status)"
    cat "$here/state/output" >> "$out/bench.txt"
    [[ $status == 124 ]] && return 1
    finish bench-ops
  fi
  [[ $target == simt ]] && return 0
  local shape type
  for shape in qwen2.5-0.5b llama-3.2-1b llama-3-8b; do
    for type in q4_0 f16; do
      finished "bench-$shape-$type" && continue
      [[ $shape == llama-3-8b && $type == f16 ]] && continue
      out_of_time 60 && { log "bench: out of time before $shape $type"; return 1; }
      timeout "$(left)" "$here/bin/sluice" make-random --shape $shape --type $type "$here/random.gguf" 2>>"$here/state/output" || { log "bench: cannot make $shape $type"; continue; }
      timeout "$(left)" "$here/bin/sluice" bench "$here/random.gguf" --device cuda --json >>"$out/bench.json" 2>"$here/state/output" && finish "bench-$shape-$type"
      log "bench $shape $type: $(tail -n 1 "$out/bench.json" | head -c 300)"
      rm -f "$here/random.gguf"
    done
  done
}

machine
status=0
case $stage in
  build) build || status=1 ;;
  test) build && tests || status=1 ;;
  sanitize) build && sanitize || status=1 ;;
  generate) build && generate || status=1 ;;
  bench) build && bench || status=1 ;;
  all) build && { tests; generate; bench; sanitize; } || status=1 ;;
  *) echo "run.sh: unknown stage '$stage'" >&2; exit 2 ;;
esac
if grep -qE 'FAILED|Failed: [1-9]|Errors: [1-9]' "$out/log.txt"; then status=1; fi
log "stage $stage ended, status $status"
exit $status
