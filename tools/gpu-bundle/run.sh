#!/usr/bin/env bash
# run.sh STAGE [--seconds N] [--out DIR] [--target cuda|simt]: one stage of the bundle, stopped in time.
#
#   build      the native library for this machine's own GPU, and the fragment test on the hardware
#   test       every kernel case, the golden models, then whole grids of other projects' sizes
#   sanitize   a case for every kernel under memcheck, racecheck, initcheck, synccheck
#   generate   text from each model that the bundle carries
#   bench      kernels from a flushed L2 beside a measured read peak, PyTorch's beside them where it is at hand, then whole models with
#              random weights of true sizes: rates, share of the read peak and time a kind of op, batch 1 to 256; then the rest of
#              attention's grid
#   all        these, in this order
#
# What is done is remembered, and what failed: the same call goes on where the last one stopped. What crashed, was all skipped or
# ran out of time is not done. Exit code 0 when all is done and nothing failed. Results: at most eight files in DIR.
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
# limited COMMAND...: 124 when time ran out, also for what had to be killed. (timeout takes 0 for no limit.)
limited() {
  timeout -k 10 "$((end > SECONDS ? end - SECONDS : 1))" "$@"
  local status=$?
  if (( status == 137 && SECONDS >= end )); then status=124; fi
  return $status
}
finish() { touch "$here/state/$target-$1"; }
failed() { log "$1 FAILED: $2"; touch "$here/state/failed-$target-$1"; }
worked() { rm -f "$here/state/failed-$target-$1"; }
export SLUICE_SHARED=$here/shared SLUICE_SHARED_PARTIAL=1 SLUICE_CACHE=$here/state/cache DOTNET_TieredPGO=0
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
  limited cmake -S "$here/native" -B "$here/build-$target" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release "${options[@]}" >"$out/build.txt" 2>&1 &&
    limited cmake --build "$here/build-$target" --parallel >>"$out/build.txt" 2>&1
  local status=$?
  [[ $status == 124 ]] && { log "build: out of time"; return 1; }
  if [[ $status != 0 ]]; then failed build "exit code $status"; tail -n 40 "$out/build.txt"; return 1; fi
  worked build
  cp "$here/build-$target/libsluice.so" "$here/bin/libsluice.so"
  local fragments
  for fragments in "$here/build-$target"/cuda/tests/fragment_test "$here/build-$target"/tests/simt_fragment_test; do
    [[ -x $fragments ]] || continue
    if "$fragments" >>"$out/build.txt" 2>&1; then log "$(basename "$fragments"): $(tail -n 1 "$out/build.txt")"; else failed fragments "$(tail -n 1 "$out/build.txt")"; tail -n 20 "$out/build.txt"; fi
  done
  finish build
}

# A case for every kernel, and ops.txt: all ops that have cases.
cases() {
  [[ -s $here/cases/ops.txt ]] && return 0
  SLUICE_CASES=representatives SLUICE_CASE_DIR=$here/cases limited "$here/bin/Sluice.Tests" -method '*Cases_can_be_written*' -noLogo -noColor >"$here/state/output" 2>&1
  [[ -s $here/cases/ops.txt ]] || { failed cases "no list of ops"; tail -n 20 "$here/state/output"; return 1; }
  worked cases
}

# suite NAME LINES OPTIONS...: tests of the runner, and LINES of each failure kept. Succeeds when they ran to their end, right or wrong.
suite() {
  local name=$1 lines=$2 line total skipped; shift 2
  limited "$here/bin/Sluice.Tests" "$@" -noLogo -noColor >"$here/state/output" 2>&1
  local status=$?
  [[ $status == 124 ]] && { log "test: out of time in $name"; return 1; }
  { echo "== $name"; grep -A"$lines" '\[FAIL\]' "$here/state/output" | head -n 200; } >> "$out/test.txt"
  line=$(grep -E 'Total:' "$here/state/output" | tail -n 1 | sed 's/^ *//')
  if (( status > 1 )) || [[ -z $line ]]; then
    tail -n 20 "$here/state/output" >> "$out/test.txt"
    failed "test-$name" "exit code $status"
    return 1
  fi
  total=$(grep -oE 'Total: [0-9]+' <<<"$line") skipped=$(grep -oE 'Skipped: [0-9]+' <<<"$line")
  if [[ ${total#*: } == "${skipped#*: }" ]]; then
    failed "test-$name" "all of ${total#*: } skipped: $(grep -A1 -m1 '\[SKIP\]' "$here/state/output" | tail -n 1 | sed 's/^ *//')"
    return 1
  fi
  log "test $name: $line"
  worked "test-$name"
  [[ $status == 0 ]] || failed "test-$name" "see test.txt"
}

tests() {
  local op undone=0
  cases || return 1
  for op in $(<"$here/cases/ops.txt"); do
    finished "test-$op" && continue
    out_of_time 10 && { log "test: out of time before $op"; return 1; }
    if SLUICE_OPS=$op SLUICE_TARGETS=$targets suite "$op" 4 -method '*Op_is_as_close*'; then finish "test-$op"; else undone=1; fi
  done
  goldens || undone=1
  grid || undone=1
  return $undone
}

# Whole models and sessions; on simt, where the tests of the repository run them all, what takes seconds.
goldens() {
  local each undone=0 which=(GpuSessionTests AttentionGraphTests GpuGoldenTests Cuda_generates_golden_ids ShippedModelTests.Logits_are_as_near)
  [[ $target == simt ]] && which=(GpuSessionTests AttentionGraphTests Simt_generates_golden_tokens)
  for each in "${which[@]}"; do
    finished "test-$each" && continue
    out_of_time 10 && { log "test: out of time before $each"; return 1; }
    if suite "$each" 4 -method "*.$each*"; then finish "test-$each"; else undone=1; fi
  done
  return $undone
}

# Cases that were right are not run again; on simt a few seconds' worth.
grid() {
  finished test-grid && return 0
  out_of_time 30 && { log "test: out of time before the grid"; return 1; }
  local most=$(( $(left) * 2 / 3 )) line
  [[ $target == simt ]] && most=5
  SLUICE_GRID=1 SLUICE_GRID_SECONDS=$most SLUICE_GRID_DONE=$here/state/grid-$target SLUICE_TARGETS=$targets \
    suite grid 44 -method '*Grid_is_as_close*' -showLiveOutput || return 1
  line=$(grep -oE 'grid on .*' "$here/state/output" | tail -n 1)
  log "test $line"
  [[ $target == simt || $line == *' 0 not begun'* ]] && finish test-grid
}

sanitize() {
  if ! command -v compute-sanitizer >/dev/null; then log "sanitize: no compute-sanitizer here, skipped"; return 0; fi
  cases || return 1
  local tool op case status
  for tool in memcheck racecheck initcheck synccheck; do
    for case in "$here"/cases/*.case; do
      op=$(basename "$case" .case)
      finished "sanitize-$tool-$op" && continue
      out_of_time 20 && { log "sanitize: out of time before $tool $op"; return 1; }
      limited compute-sanitizer --tool $tool --error-exitcode 9 "$here/build-$target/tests/sluice_replay" --backend cuda "$case" >"$here/state/output" 2>&1
      status=$?
      [[ $status == 124 ]] && { log "sanitize: out of time in $tool $op"; return 1; }
      if [[ $status == 0 ]] && grep -q '^1 passed' "$here/state/output"; then
        log "sanitize $tool $op: clean"
      else
        failed "sanitize-$tool-$op" "exit code $status, $(tail -n 1 "$here/state/output")"
        { echo "== $tool $op"; head -n 60 "$here/state/output"; } >> "$out/test.txt"
      fi
      finish "sanitize-$tool-$op"
    done
  done
}

generate() {
  local model name tokens=100 status
  [[ $target == simt ]] && tokens=4
  for model in "$here"/shared/models/*/*.gguf; do
    [[ -e $model ]] || continue
    name=generate-$(basename "$model")
    finished "$name" && continue
    out_of_time 10 && { log "generate: out of time"; return 1; }
    [[ $target == simt && $model != *stories260K-f32* ]] && continue
    limited "$here/bin/sluice" generate "$model" --prompt "Once upon a time" --max-tokens $tokens --device $target --json >"$here/state/rows" 2>"$here/state/output"
    status=$?
    [[ $status == 124 ]] && { log "generate: out of time in $name"; return 1; }
    cat "$here/state/rows" >> "$out/generate.json"
    if [[ $status == 0 ]]; then log "$name: ok"; else failed "$name" "$(tail -n 1 "$here/state/output")"; fi
    finish "$name"
  done
}

# rows FILE: what a run printed, less a line that it was stopped in.
rows() { grep -E '\}$' "$1" >> "$out/bench.json"; }

# ops --small|--large|--whole: kernels by themselves, those that goals are set for first.
ops() {
  local name=bench-ops$1 status
  finished "$name" && return 0
  out_of_time 10 && { log "bench: out of time before the ops $1"; return 1; }
  limited "$here/bin/Sluice.Perf" ops $targets $1 --skip "$out/bench.json" >"$here/state/rows" 2>"$here/state/output"
  status=$?
  rows "$here/state/rows"
  log "bench ops $1: $(grep -c . "$here/state/rows") rows"
  cat "$here/state/output" >> "$out/bench.txt"
  [[ $status == 124 ]] && { log "bench: out of time in the ops $1"; return 1; }
  [[ $status == 0 ]] || failed "$name" "exit code $status, $(tail -n 1 "$here/state/output")"
  finish "$name"
}

# attention.md, of all rows so far. Its pictures, from the rows alone: bin/Sluice.Perf table bench.json --out DIR
table() {
  grep -q '"case":"[a-z]*_attention' "$out/bench.json" 2>/dev/null || return 0
  if "$here/bin/Sluice.Perf" table "$out/bench.json" --out "$here/state/table" --target "$targets" 2>"$here/state/output"; then
    cp "$here/state/table/attention.md" "$out/"
    worked bench-table
  else
    failed bench-table "$(tail -n 1 "$here/state/output")"
  fi
}

# The same shapes by PyTorch, right behind ours; four minutes are enough for all of them.
peers() {
  finished bench-peers && return 0
  [[ $target == cuda ]] || return 0
  python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null || { log "bench: no PyTorch here that sees the GPU, so no peers"; return 0; }
  out_of_time 30 && { log "bench: out of time before the peers"; return 1; }
  local status most=$(( $(left) * 2 / 3 ))
  limited python3 -B "$here/torch_peers.py" --seconds $((most < 240 ? most : 240)) >"$here/state/rows" 2>"$here/state/output"
  status=$?
  rows "$here/state/rows"
  log "bench peers: $(grep -c . "$here/state/rows") rows; $(tail -n 1 "$here/state/output")"
  cat "$here/state/output" >> "$out/bench.txt"
  [[ $status == 124 ]] && { log "bench: out of time in the peers"; return 1; }
  [[ $status == 0 ]] || failed bench-peers "exit code $status, $(tail -n 1 "$here/state/output")"
  finish bench-peers
}

# Ours over theirs, once both are there.
ratios() {
  finished bench-ratios && return 0
  command -v python3 >/dev/null || return 0
  { echo; python3 -B "$here/torch_peers.py" --compare "$out/bench.json" --target "$targets"; } >> "$out/bench.txt" || { failed bench-ratios "torch_peers.py --compare"; return 0; }
  finish bench-ratios
}

# model SHAPE TYPE BATCHES OPTIONS...: makes one, measures it, and removes it.
model() {
  local shape=$1 type=$2 batches=$3 name=bench-$1-$2 file=$here/$1-$2.gguf status; shift 3
  finished "$name" && return 0
  out_of_time 60 && { log "bench: out of time before $shape $type"; return 1; }
  : > "$here/state/rows"
  limited "$here/bin/sluice" make-random --shape "$shape" --type "$type" "$file" 2>"$here/state/output" &&
    limited "$here/bin/sluice" bench "$file" --device $target --batch "$batches" --profile --json "$@" >"$here/state/rows" 2>"$here/state/output"
  status=$?
  rm -f "$file"
  [[ $status == 124 ]] && { log "bench: out of time in $shape $type"; return 1; }
  # Batches that ran are worth having though a larger one found no memory.
  rows "$here/state/rows"
  if [[ $status == 0 ]]; then log "$name: $(head -n 1 "$here/state/rows" | head -c 300)"; else failed "$name" "exit code $status, $(tail -n 1 "$here/state/output")"; fi
  finish "$name"
}

# Where this GPU's products change their kernels: measured first, and used by all that follows.
tune() {
  finished bench-tune && return 0
  out_of_time 10 && { log "bench: out of time before tune"; return 1; }
  local status sizes=()
  [[ $target == simt ]] && sizes=(--size 256 --most-rows 16)
  limited "$here/bin/sluice" tune --device $target "${sizes[@]}" --json >"$here/state/rows" 2>"$here/state/output"
  status=$?
  [[ $status == 124 ]] && { log "bench: out of time in tune"; return 1; }
  if [[ $status == 0 ]]; then
    cat "$here/state/rows" >> "$out/bench.json"
    log "bench tune: $(grep -oE '"few":.*"dense":\[[^]]*\]' "$here/state/rows")"
    worked bench-tune
  else
    failed bench-tune "exit code $status, $(tail -n 1 "$here/state/output")"
  fi
  finish bench-tune
}

bench() {
  measured
  local status=$?
  table
  return $status
}

measured() {
  local sizes=--large; [[ $target == simt ]] && sizes=--small
  tune && ops $sizes && peers || return 1
  ratios
  if [[ $target == simt ]]; then
    model tiny q4_0 1,2 --prompt-tokens 2 --gen-tokens 1 --rounds 1
    return
  fi
  local each
  # The fewest bytes first; Q4_K not of qwen2.5-0.5b, whose rows are no blocks of 256.
  for each in qwen2.5-0.5b:q4_0 llama-3.2-1b:q4_0 llama-3-8b:q4_0 llama-3.2-1b:bf16 llama-3-8b:bf16 llama-3-8b:q4_k llama-3.2-1b:q4_k qwen2.5-0.5b:f16; do
    if [[ $each == llama-3-8b:bf16 ]] && (( $(df -k --output=avail "$here" | tail -n 1) < 20000000 || $(nvidia-smi --query-gpu=memory.total --format=csv,noheader,nounits | head -n 1) < 24000 )); then
      log "bench: llama-3-8b in bf16 wants 20 GB of disk and 24 GB on the GPU: left out"
      continue
    fi
    model ${each/:/ } 1,4,16,64,256 --prompt-tokens 128 --gen-tokens 32 --rounds 3 || return 1
  done
  # The rest of attention's grid takes longer than all before it.
  ops --whole
}

machine
status=0
case $stage in
  build) build || status=1 ;;
  test) build && tests || status=1 ;;
  sanitize) build && sanitize || status=1 ;;
  generate) build && generate || status=1 ;;
  bench) build && bench || status=1 ;;
  all) if build; then for each in tests generate bench sanitize; do $each || status=1; done; else status=1; fi ;;
  *) echo "run.sh: unknown stage '$stage'" >&2; exit 2 ;;
esac
for each in "$here"/state/failed-"$target"-*; do
  [[ ! -e $each ]] || { log "failed: ${each##*/failed-"$target"-}"; status=1; }
done
log "stage $stage ended, status $status"
exit $status
