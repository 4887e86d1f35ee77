#!/usr/bin/env bash
# Unpacks the bundle elsewhere and runs its stages on the simt backend: what a GPU machine will do, without the GPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
tar -C "$folder" -xzf artifacts/gpu-bundle.tar.gz
for stage in build test generate bench; do "$folder/gpu-bundle/run.sh" $stage --target simt --seconds 420 --out "$folder/out"; done
files=$(find "$folder/out" -type f | wc -l)
if ((files > 8)); then echo "the bundle left $files files, eight are the most" >&2; exit 1; fi
[[ ! -d $folder/gpu-bundle/shared ]] || grep -q 'Lily\|there was' "$folder/out/generate.json"
grep -q 'bench tune: "few":\[' "$folder/out/log.txt" || { echo "the bundle did not measure switch points" >&2; exit 1; }
# Attention, small: its table is there, and the pictures of its rows are XML with a mark a case.
grep -q '^## Cascade 4/2/64' "$folder/out/attention.md" || { echo "the bundle did not write attention's table" >&2; exit 1; }
"$folder/gpu-bundle/bin/Sluice.Perf" table "$folder/out/bench.json" --out "$folder/table" --target simt/1
cases=$(grep -c '"case":"[a-z]*_attention' "$folder/out/bench.json") flat=$(grep -c 'paged_attention flat' "$folder/out/bench.json")
if ((cases < 10 || $(grep -c 'class="cell"' "$folder/table/roofline.svg") != cases - flat || $(grep -c 'class="cell"' "$folder/table/cascade.svg") != flat)); then
  echo "the pictures do not show the $cases cases of attention that were measured" >&2; exit 1
fi
! command -v python3 >/dev/null || python3 -c 'import sys, xml.dom.minidom; [xml.dom.minidom.parse(f) for f in sys.argv[1:]]' "$folder"/table/*.svg
# Whole models: a line a batch, with the time of each kind of op; and the place where PyTorch's times would stand beside ours.
[[ $(grep -c '"batch":[12],.*"kinds":\[{"kind"' "$folder/out/bench.json") == 2 ]] || { echo "the bundle's bench did not take a step apart" >&2; exit 1; }
! command -v python3 >/dev/null || grep -q 'no case has both a row of simt/1 and one of torch' "$folder/out/bench.txt" || { echo "the bundle's table of ratios was not written" >&2; exit 1; }
# Every op of the library's case list was tested: none is forgotten here.
for op in $(<"$folder/gpu-bundle/cases/ops.txt"); do grep -q "test $op: Sluice.Tests *Total: [1-9]" "$folder/out/log.txt" || { echo "the bundle did not test $op" >&2; exit 1; }; done
grep -q 'grid on simt/1: [1-9][0-9]* right, 0 wrong' "$folder/out/log.txt" || { echo "the bundle's grid did not run" >&2; exit 1; }
# A second call finds everything done, and ends at once.
start=$SECONDS
"$folder/gpu-bundle/run.sh" test --target simt --seconds 60 --out "$folder/out" >/dev/null
((SECONDS - start < 20)) || { echo "the bundle did not resume" >&2; exit 1; }
echo "the bundle runs"
