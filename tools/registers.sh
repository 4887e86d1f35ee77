#!/usr/bin/env bash
# registers.sh BUILD-FOLDER: registers, spills and shared memory of every kernel, from what ptxas told the build (the .ptxas files that
# native/cuda/keep_log.sh keeps). A Markdown table of families on standard output; fails, naming the kernels, where one spills.
# The words are those of nvcc 11.8 to 13: later ones add "used N barriers" and lines that are not looked at.
set -euo pipefail
folder=${1:?registers.sh BUILD-FOLDER}
# A build folder keeps the logs of kernels that are gone from the sources: they count no more.
mapfile -t logs < <(find "$folder" -name '*.ptxas' | sort | while read -r log; do
  source=${log##*/}
  [[ $log != */__/kernels/* || -e $(dirname "$0")/../native/kernels/${source%.o.ptxas} ]] && echo "$log"
done)
[[ ${#logs[@]} -gt 0 ]] || { echo "registers.sh: no .ptxas files under $folder: build with SL_CUDA first" >&2; exit 1; }
rows=$(mktemp)
trap 'rm -f "$rows"' EXIT
# A line an instantiation and architecture: arch, registers, stack, stores, loads, shared, mangled name. A kernel of an `extern template`
# may stand in two objects; it counts once.
awk '
  /Compiling entry function/ { split($0, part, "\047"); name = part[2]; arch = part[4]; stack = stores = loads = 0 }
  /Function properties for/ { mine = name != "" && index($0, name) }
  / bytes stack frame,/ && mine { stack = $1; stores = $5; loads = $9; mine = 0 }
  /: Used [0-9]+ registers/ && name != "" {
    match($0, /Used [0-9]+/); registers = substr($0, RSTART + 5, RLENGTH - 5); shared = 0
    if (match($0, /[0-9]+ bytes smem/)) shared = substr($0, RSTART) + 0
    print arch, registers, stack, stores, loads, shared, name; name = ""
  }' "${logs[@]}" | c++filt | sort -u > "$rows"
[[ -s $rows ]] || { echo "registers.sh: ptxas said nothing of kernels in ${#logs[@]} logs" >&2; exit 1; }
# What is left of "void sl::cuda_build::rms_norm_kernel<float, ...>(...)" is rms_norm.
awk '
  { name = $0; sub(/^[^ ]+ [0-9]+ [0-9]+ [0-9]+ [0-9]+ [0-9]+ /, "", name); full = name
    gsub(/\(anonymous namespace\)::/, "", name); sub(/^void /, "", name); sub(/[<(].*/, "", name); sub(/.*::/, "", name); sub(/_kernel$/, "", name)
    key = name SUBSEP $1; families[name]; archs[$1]; n[key]++
    if ($2 + 0 > registers[key]) registers[key] = $2 + 0
    if ($3 + 0 > stack[key]) stack[key] = $3 + 0
    if ($4 + 0 > stores[key]) stores[key] = $4 + 0
    if ($5 + 0 > loads[key]) loads[key] = $5 + 0
    if ($6 + 0 > shared[key]) shared[key] = $6 + 0
    if ($4 + $5 > 0) { spilled = 1; printf "spill on %s: %d bytes stored, %d loaded: %s\n", $1, $4, $5, full > "/dev/stderr" } }
  END {
    na = 0; for (a in archs) order[++na] = a
    for (i = 1; i <= na; i++) for (j = i + 1; j <= na; j++) if (order[j] < order[i]) { t = order[i]; order[i] = order[j]; order[j] = t }
    printf "| kernel | instantiations |"; for (i = 1; i <= na; i++) printf " %s registers | spilled, stored/loaded | stack | static shared |", order[i]
    printf "\n|---|---|"; for (i = 1; i <= na; i++) printf "---|---|---|---|"; printf "\n"
    count = 0; for (f in families) sorted[++count] = f
    for (i = 1; i <= count; i++) for (j = i + 1; j <= count; j++) if (sorted[j] < sorted[i]) { t = sorted[i]; sorted[i] = sorted[j]; sorted[j] = t }
    for (i = 1; i <= count; i++) {
      f = sorted[i]; printf "| %s | %d |", f, n[f, order[1]]
      for (j = 1; j <= na; j++) { k = f SUBSEP order[j]; printf " %d | %d/%d | %d | %d |", registers[k], stores[k], loads[k], stack[k], shared[k] }
      printf "\n"
    }
    exit spilled
  }' "$rows"
