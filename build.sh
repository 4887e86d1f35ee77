#!/usr/bin/env bash
# Builds native, then managed; both are CMake presets and dotnet. ./build.sh help tells the verbs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: ./build.sh [VERB] [OPTIONS]

  build       native library and console (the default)
  demo        build what is missing, then have the model that ships tell a story and answer a question about it
              (SLUICE_DEMO_MODEL names another, which continues SLUICE_DEMO_PROMPT)
  test        build and run every test; the last line sums all suites
              --counts instead: what every op moves and what every kernel takes, printed and kept in perf/COUNTS.md
  bench       benchmarks of ops and of P/Invoke (arguments after -- go to BenchmarkDotNet)
              cpu [--help]: whole models on the CPU, beside other engines where --llama-bench PATH names them
  soak        engines under a random load: --seconds N (60), --model PATH (models/tales); fails where anything leaks, hangs or differs
  fmt         format C++ and C#
  bindings    write the generated bindings anew from native/include/sluice.h
  pack        NuGet packages in artifacts/packages; restores and runs samples/Embed and samples/Serve from them
  publish     one self-contained, trimmed file: artifacts/publish/sluice
  gpu-bundle  one archive that builds, tests and measures on a GPU machine without .NET
  sanitize    the kernel cases and native tests under ASan + UBSan and TSan
  cross       build the library for Windows and for Linux on AArch64, and run the cpu backend's products and all kernel
              cases there, by qemu
  nvcc        compile every kernel for sm_80, sm_90 and PTX, and print its registers; fails on a spill

options
  --cuda auto|on|off   build the cuda backend: auto where nvcc is found (test and publish: off unless asked)
  --install            as root: install missing system packages

pack and publish compile CUDA for every architecture that is supported; SLUICE_CUDA_ARCHITECTURES names others, as in "80-real;90"
TEXT
}

verb=build cuda= install=no counts=no rest=()
[[ $# -gt 0 && $1 != -* ]] && { verb=$1; shift; }
while [[ $# -gt 0 ]]; do
  case $1 in
    --cuda) [[ ${2:-} =~ ^(auto|on|off)$ ]] || { echo "build.sh: --cuda wants auto, on or off" >&2; exit 2; }; cuda=$2; shift 2 ;;
    --install) install=yes; shift ;;
    --counts) counts=yes; shift ;;
    --seconds|--model|--seed) [[ $verb == soak ]] || { echo "build.sh: only soak knows '$1'" >&2; exit 2; }; rest=("$@"); break ;;
    cpu) [[ $verb == bench ]] || { echo "build.sh: only bench knows '$1'" >&2; exit 2; }; rest=("$@"); break ;;
    -h|--help) usage; exit 0 ;;
    --) shift; rest=("$@"); break ;;
    *) echo "build.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
  esac
done

artifacts=$PWD/artifacts
jobs=$(nproc 2>/dev/null || echo 2)
configuration=Release
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1 MSBUILDDISABLENODEREUSE=1
say() { printf '\n== %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# ---- what the machine must have: named with its install line, installed with --install
has_boost() { echo '#include <boost/context/detail/fcontext.hpp>' | g++ -E -x c++ - >/dev/null 2>&1; }
has_clang() { [[ -n ${CLANG:-} ]] || have clang || compgen -c clang- | grep -qE '^clang-[0-9]+$'; }
packages() {  # packages REQUIRED|WANTED CHECK PACKAGE WHY
  "$2" && return
  if [[ $install == yes ]]; then
    if [[ $(id -u) != 0 ]] || ! have apt-get; then echo "build.sh: --install needs root and apt-get" >&2; exit 1; fi
    [[ -n ${updated:-} ]] || { apt-get update -qq; updated=yes; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $3 >&2
  elif [[ $1 == REQUIRED ]]; then
    echo "build.sh: $4 is missing: apt-get install --no-install-recommends $3   (or run: ./build.sh $verb --install)" >&2
    exit 1
  else
    echo "build.sh: note: $4 is missing, what needs it is left out: apt-get install --no-install-recommends $3   (or run: ./build.sh $verb --install)" >&2
  fi
}
has_curl() { have curl; }
has_aarch64() { have aarch64-linux-gnu-g++; }
has_qemu() { have qemu-aarch64; }
has_mingw() { have x86_64-w64-mingw32-g++-posix; }
check_cmake() { have cmake; }
check_cxx() { have g++; }
check_make() { have ninja || have make; }
require_tools() {
  packages REQUIRED check_cxx g++ "a C++ compiler"
  packages REQUIRED check_cmake cmake "CMake"
  packages REQUIRED check_make ninja-build "ninja or make"
  if ! have dotnet; then echo "build.sh: the .NET 10 SDK is missing: https://dotnet.microsoft.com/download" >&2; exit 1; fi
}
want_test_tools() {
  packages WANTED has_boost libboost-context-dev "Boost.Context (for the simt backend)"
  packages WANTED has_clang clang-14 "clang (for the binding generator)"
}
want_nvcc() {
  have nvcc && return
  if [[ $install == yes && $(id -u) == 0 && -f /etc/apt/sources.list.d/debian.sources ]]; then
    sed 's/^Components:.*/Components: contrib non-free/' /etc/apt/sources.list.d/debian.sources > /etc/apt/sources.list.d/debian-nonfree.sources
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nvidia-cuda-toolkit g++-11 >&2
  else
    echo "build.sh: nvcc is missing. On Debian: the package nvidia-cuda-toolkit of the component non-free, and g++-11 (as root: ./build.sh $verb --install)" >&2
    exit 1
  fi
}

# ---- building
native() {  # native PRESET [CMAKE OPTIONS]
  local preset=$1; shift
  local generator=()
  [[ -z ${SLUICE_CUDA_ARCHITECTURES:-} ]] || set -- "$@" "-DCMAKE_CUDA_ARCHITECTURES=$SLUICE_CUDA_ARCHITECTURES"
  [[ -f $artifacts/native/$preset/CMakeCache.txt ]] || { have ninja && generator=(-G Ninja); }
  (cd native && cmake --preset "$preset" "${generator[@]}" "$@" >"$artifacts/native-$preset.log" 2>&1) || { cat "$artifacts/native-$preset.log" >&2; exit 1; }
  cmake --build "$artifacts/native/$preset" --parallel "$jobs" >&2
}
cuda_option() {
  case ${cuda:-$1} in
    on) want_nvcc; echo -DSL_CUDA=ON ;;
    auto) if have nvcc; then echo -DSL_CUDA=ON; else echo -DSL_CUDA=OFF; fi ;;
    off) echo -DSL_CUDA=OFF ;;
  esac
}
release() { # release DEFAULT-OF-CUDA
  local simt=OFF
  has_boost && simt=ON
  native release -DSL_WITH_SIMT=$simt "$(cuda_option "$1")"
}
managed() { dotnet build "$1" -c $configuration -v quiet -clp:NoSummary "${@:2}" >&2; }
console() {
  managed src/Console/Sluice.Console.csproj
  # The program is called sluice; its assembly has another name, for file systems that fold case.
  local from=$artifacts/dotnet/bin/Sluice.Console/release
  mkdir -p "$artifacts/bin"
  cp -r "$from/." "$artifacts/bin/"
  cp "$from/Sluice.Console" "$artifacts/bin/sluice"
}
published() {
  dotnet publish src/Console/Sluice.Console.csproj -c $configuration -r linux-x64 --self-contained -p:PublishTrimmed=true -p:PublishSingleFile=true \
    "-p:SluiceNative=$1" -v quiet -clp:NoSummary -o "$2" >&2
}

# ---- running tests: every suite ends with a line that is summed
passed=0 failed=0 skipped=0
suite() {  # suite NAME COMMAND...
  local name=$1 log="$artifacts/test-$1.log" line status=0; shift
  say "$name"
  "$@" >"$log" 2>&1 || status=$?
  line=$(grep -E '^ *(=== TEST EXECUTION SUMMARY|[0-9]+ passed, [0-9]+ failed|.*Total: [0-9]+, Errors: )' "$log" | grep -vF SUMMARY | tail -n 1 || true)
  local p=0 f=0 s=0
  if [[ $line =~ ([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)? ]]; then
    p=${BASH_REMATCH[1]} f=${BASH_REMATCH[2]} s=${BASH_REMATCH[4]:-0}
  elif [[ $line =~ Total:\ ([0-9]+),\ Errors:\ ([0-9]+),\ Failed:\ ([0-9]+),\ Skipped:\ ([0-9]+) ]]; then
    f=$((BASH_REMATCH[2] + BASH_REMATCH[3])) s=${BASH_REMATCH[4]} p=$((BASH_REMATCH[1] - BASH_REMATCH[3] - s))
  else
    f=1
  fi
  [[ $status != 0 && $f == 0 ]] && f=1
  if [[ $f != 0 ]]; then
    grep -E -A12 '\[FAIL\]|FAILED|ERROR|error|runtime error|WARNING: ThreadSanitizer' "$log" | head -n 150 || true
    tail -n 15 "$log"
    echo "the whole output: $log"
  fi
  # Skips with their reasons, one line a reason.
  grep -E -A1 '\[SKIP\]' "$log" | grep -vE '\[SKIP\]|^--' | sed -E 's/^ +//' | sort | uniq -c | sort -rn | sed 's/^/  skipped:/' | head -n 12 || true
  echo "  $name: $p passed, $f failed, $s skipped"
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}
totals() {
  printf '\n%d passed, %d failed, %d skipped\n' $passed $failed $skipped
  [[ $failed == 0 ]]
}
bindings_check() {
  if ! has_clang; then echo "clang is not here"; echo "0 passed, 0 failed, 1 skipped"; return; fi
  if dotnet "$artifacts/dotnet/bin/Bindgen/release/Bindgen.dll" native/include/sluice.h src/Interop/NativeMethods.g.cs native/abi/layout.g.inc --check; then
    echo "1 passed, 0 failed, 0 skipped"
  else
    echo "0 passed, 1 failed, 0 skipped"
  fi
}
symbols_check() {  # no global symbol but sl_*, none defined twice
  local other
  other=$(nm -D --defined-only "$artifacts/native/release/libsluice.so" | awk '{print $3}' | sed 's/@.*//' | grep -v '^sl_' || true)
  if [[ -z $other ]]; then echo "1 passed, 0 failed, 0 skipped"; else echo "exported, and should not be: $other"; echo "0 passed, 1 failed, 0 skipped"; fi
}
exports_check() {  # the DLL exports the header's functions and nothing else
  if diff <(sed -nE 's/^SL_API .*\b(sl_[a-z0-9_]+)\(.*/\1/p' native/include/sluice.h | LC_ALL=C sort) \
    <(x86_64-w64-mingw32-objdump -p "$artifacts/native/windows/sluice.dll" | awk '/^\[Ordinal\/Name Pointer\] Table/ { names = 1; next } names && NF == 0 { exit } names { print $NF }' | LC_ALL=C sort); then
    echo "1 passed, 0 failed, 0 skipped"
  else
    echo "FAILED: not the header's functions (<) are exported (>)"; echo "0 passed, 1 failed, 0 skipped"
  fi
}
corpus_check() {  # what the shipped model was trained on and is measured with
  if have python3; then python3 -B tools/demo-model/check.py; else echo "python3 is not here"; echo "0 passed, 0 failed, 1 skipped"; fi
}
peers_check() {  # how the bundle's table stands our times beside PyTorch's
  if have python3; then python3 -B tools/gpu-bundle/check.py; else echo "python3 is not here"; echo "0 passed, 0 failed, 1 skipped"; fi
}
native_suites() {  # native_suites PRESET: every native test that the preset built
  local test
  for test in "$artifacts/native/$1"/tests/*_test "$artifacts/native/$1"/simt/tests/simt_*tests; do
    [[ -x $test ]] && suite "$1-$(basename "$test")" "$test"
  done
  return 0
}
missing_syncwarp() {  # ThreadSanitizer reports the planted race and not the correct kernel
  local program=$artifacts/native/tsan/simt/tests/simt_missing_syncwarp status=0
  "$program" planted || status=$?
  [[ $status == 66 ]] || { echo "the planted race was not reported (exit code $status)"; echo "0 passed, 1 failed, 0 skipped"; return; }
  "$program" correct || { echo "FAILED: the correct kernel was reported"; echo "1 passed, 1 failed, 0 skipped"; return; }
  echo "2 passed, 0 failed, 0 skipped"
}
cases() {
  rm -rf "$artifacts/cases"
  SLUICE_CASE_DIR=$artifacts/cases "$artifacts/dotnet/bin/Sluice.Tests/release/Sluice.Tests" -method '*Cases_can_be_written*' >/dev/null
}

# The server that the packages made: many clients at once, one that leaves early, requests that can never run, and an end in good order.
serve_check() {  # serve_check PROGRAM MODEL
  local log=$artifacts/serve/log url= pid i
  "$1" "$2" --urls http://127.0.0.1:0 >"$log" 2>&1 & pid=$!
  serve_fail() { echo "build.sh: samples/Serve: $*" >&2; tail -n 20 "$log" >&2; kill "$pid" 2>/dev/null || true; exit 1; }
  for ((i = 0; i < 600; i++)); do
    url=$(sed -n 's/.*Now listening on: //p' "$log")
    [[ -z $url ]] && kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  [[ -n $url ]] || serve_fail "does not listen"
  generate() { curl -sN --max-time 120 -H 'Content-Type: application/json' -d "$1" "${@:2}" "$url/generate"; }
  counted() { curl -s --max-time 20 "$url/stats" | sed -n "s/.*\"$1\":\([0-9]*\).*/\1/p"; }
  events() { grep -c '^data: {"id":' || true; }
  settled() {  # nobody runs, and no page is held
    for ((i = 0; i < 200; i++)); do
      [[ $(counted running) == 0 && $(counted waiting) == 0 && $(($(counted free_pages) + $(counted cached_pages))) == $(counted pages) ]] && return
      sleep 0.1
    done
    serve_fail "pages are still held: $(curl -s "$url/stats")"
  }

  # Three at once, each by its own seed: what they get together they get alone.
  local ask='{"prompt":"Once upon a time","max_tokens":40,"temperature":0.8,"seed":%d}' seed clients=()
  for seed in 1 2 3; do generate "$(printf "$ask" $seed)" >"$artifacts/serve/answer-$seed" & clients+=($!); done
  wait "${clients[@]}" || serve_fail "a client got no answer"
  for seed in 1 2 3; do
    [[ $(events <"$artifacts/serve/answer-$seed") -gt 1 ]] || serve_fail "an answer is no stream of tokens: $(head -c 300 "$artifacts/serve/answer-$seed")"
    generate "$(printf "$ask" $seed)" | cmp - "$artifacts/serve/answer-$seed" || serve_fail "seed $seed gets another answer among others than alone"
  done
  settled

  # Who leaves ends his request. A small model may be done before it hears of that, so there are tries.
  local tries long='{"prompt":"Once upon a time","temperature":0.8,"seed":5}' whole before some=
  whole=$(generate "$long" | events)
  for ((tries = 0; tries < 20; tries++)); do
    before=$(counted generated_tokens)
    { generate "$long" || true; } | head -n 1 >/dev/null || true
    settled
    some=$(($(counted generated_tokens) - before))
    [[ $some -ge $whole ]] || break
  done
  [[ $some -lt $whole ]] || serve_fail "a client that left after one of $whole tokens had $some made"

  local refused
  refused=$(generate '{"prompt":"Once","temperature":-1}' -w ' %{http_code}')
  [[ $refused == '{"error":"Temperature is -1'*' 400' ]] || serve_fail "a temperature below zero gets: $refused"
  refused=$(generate '{"prompt":"Once","max_tokens":100000000}' -w ' %{http_code}')
  [[ $refused == '{"error":"'*'tokens are wanted'*' 400' ]] || serve_fail "100,000,000 tokens get: $refused"
  kill -TERM "$pid"
  wait "$pid" || serve_fail "ended with code $?"
  echo "samples/Serve: three clients at once got what they get alone; one that left after a token had $some of $whole made; bad requests were refused"
}

# perf/COUNTS.md: the counts of the cases in tests/Kernels/CountedCases.cs, then what nvcc said, where it has been asked; what an
# earlier one said stays otherwise.
counts_table() {
  local table=$artifacts/counts.md kept=perf/COUNTS.md predicted=$artifacts/predicted.md registers
  rm -f "$table" "$predicted"
  [[ ! -s $artifacts/instructions.tsv ]] || export SLUICE_PREDICTED=$predicted SLUICE_INSTRUCTIONS=$artifacts/instructions.tsv
  SLUICE_COUNTS=$table "$artifacts/dotnet/bin/Sluice.Tests/release/Sluice.Tests" -method '*Counts_table*' -method '*Predicted_times*' -noLogo -noColor >"$artifacts/counts.log" 2>&1 || { cat "$artifacts/counts.log" >&2; exit 1; }
  [[ -s $table ]] || { echo "build.sh: no table was written: the simt backend is missing" >&2; cat "$artifacts/counts.log" >&2; exit 1; }
  if [[ -s $artifacts/registers.md ]]; then registers=$(<"$artifacts/registers.md"); else registers=$(sed -n '/^nvcc /,$p' "$kept" 2>/dev/null); fi
  {
    cat <<'TEXT'
# Counted

What every op moves, on the executor, what its kernels take, and what that should come to. Written by `./build.sh test --counts` (after `./build.sh nvcc` for the
tables behind it); CI fails where it is not up to date. Nothing here is a measured time.

- *least*: each input and output once, weights as the backend keeps them, a row of the KV cache once for its head and its sequence (in a
  cascade: once for all that share it). *moved*: 32 bytes for each sector that a warp's access touches, caches not counted.
- *sector use*: bytes that lanes asked for, of those of the sectors; above 100% where lanes share a word.
- *bank conflicts*: extra passes of shared memory. *mma*: tensor-core instructions of warps.
- What is allowed of each, and why, is asserted for every case: `tests/Kernels/Claims.cs`.

## Moved

TEXT
    echo "Counted by a build of $(g++ -dumpfullversion 2>/dev/null | sed 's/^/g++ /'), four multiprocessors, seed 1."
    echo
    cat "$table"
    printf '\n## Predicted times\n\n'
    if [[ -s $predicted ]]; then cat "$predicted"; else sed -n '/^## Predicted/,/^## Registers/p' "$kept" 2>/dev/null | sed '1,2d;$d' | sed '$d'; fi
    printf '\n## Registers\n\n'
    printf '%s\n' "${registers:-nvcc has not been asked yet.}"
  } > "$artifacts/COUNTS.md"
  mv "$artifacts/COUNTS.md" "$kept"
  cat "$kept"
}

mkdir -p "$artifacts"
case $verb in
  build)
    require_tools
    release auto
    console
    echo "built artifacts/bin/sluice"
    ;;
  demo)
    require_tools
    [[ -f $artifacts/native/release/libsluice.so ]] || release auto
    [[ -x $artifacts/bin/sluice ]] || console
    if [[ -n ${SLUICE_DEMO_MODEL:-} ]]; then
      "$artifacts/bin/sluice" generate "$SLUICE_DEMO_MODEL" --prompt "${SLUICE_DEMO_PROMPT:-Once upon a time}" --max-tokens 100
    else
      printf '%s\n' "Tell me a story about Mia and a kite." "Who found the kite?" "What is 347 + 285?" | "$artifacts/bin/sluice" chat models/tales --temperature 0
    fi
    ;;
  test)
    require_tools
    want_test_tools
    release off
    if [[ $counts == yes ]]; then
      managed tests/Sluice.Tests.csproj
      counts_table
      exit
    fi
    managed Sluice.slnx
    console
    suite bindings bindings_check
    suite symbols symbols_check
    suite demo-model corpus_check
    suite gpu-bundle peers_check
    native_suites release
    suite tests "$artifacts/dotnet/bin/Sluice.Tests/release/Sluice.Tests" -parallel all -noLogo
    totals
    ;;
  bench)
    require_tools
    if [[ ${rest[0]:-} == cpu ]]; then release off; else release auto; fi
    managed perf/Sluice.Perf.csproj
    "$artifacts/dotnet/bin/Sluice.Perf/release/Sluice.Perf" "${rest[@]}"
    ;;
  soak)
    require_tools
    [[ -f $artifacts/native/release/libsluice.so ]] || release off
    managed perf/Sluice.Perf.csproj
    "$artifacts/dotnet/bin/Sluice.Perf/release/Sluice.Perf" soak "${rest[@]}"
    ;;
  fmt)
    git ls-files 'native/*.h' 'native/*.c' 'native/*.cpp' 'native/*.cu' 'native/*.cuh' | grep -v '^native/include/' | xargs clang-format -i
    dotnet format Sluice.slnx
    ;;
  bindings)
    require_tools
    packages REQUIRED has_clang clang-14 "clang"
    managed tools/Bindgen/Bindgen.csproj
    dotnet "$artifacts/dotnet/bin/Bindgen/release/Bindgen.dll" native/include/sluice.h src/Interop/NativeMethods.g.cs native/abi/layout.g.inc
    ;;
  pack)
    require_tools
    native package "$(cuda_option auto)"
    rm -rf "$artifacts/packages"
    for project in src/Interop/Sluice.Interop.csproj src/Host/Sluice.csproj; do
      dotnet pack $project -c $configuration "-p:SluiceNative=$artifacts/native/package/libsluice.so" -o "$artifacts/packages" -v quiet -clp:NoSummary >&2
    done
    ls -l "$artifacts/packages" >&2
    # The sample knows the packages alone: a folder of its own for what it restores, so that no older one is taken.
    rm -rf "$artifacts/embed"
    dotnet publish samples/Embed/Embed.csproj -c $configuration -v quiet -clp:NoSummary "-p:RestorePackagesPath=$artifacts/embed/packages" -o "$artifacts/embed/bin" >&2
    "$artifacts/embed/bin/Embed" "${SLUICE_DEMO_MODEL:-models/tales}"
    rm -rf "$artifacts/serve"
    dotnet publish samples/Serve/Serve.csproj -c $configuration -v quiet -clp:NoSummary "-p:RestorePackagesPath=$artifacts/serve/packages" -o "$artifacts/serve/bin" >&2
    packages WANTED has_curl curl "curl (to ask the server that samples/Serve is)"
    if have curl; then serve_check "$artifacts/serve/bin/Serve" "${SLUICE_DEMO_MODEL:-models/tales}"; fi
    ;;
  publish)
    require_tools
    native package "$(cuda_option off)"
    published "$artifacts/native/package/libsluice.so" "$artifacts/publish/files"
    cp "$artifacts/publish/files/Sluice.Console" "$artifacts/publish/sluice"
    ls -l "$artifacts/publish/sluice"
    ;;
  gpu-bundle)
    require_tools
    want_test_tools
    exec tools/gpu-bundle/make.sh
    ;;
  sanitize)
    require_tools
    want_test_tools
    release off
    managed tests/Sluice.Tests.csproj
    cases
    export ASAN_OPTIONS=detect_stack_use_after_return=0 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=0:exitcode=66
    native asan
    for isa in portable avx2 avx512_vnni; do
      SLUICE_ISA=$isa suite "asan-cpu-$isa" "$artifacts/native/asan/tests/sluice_replay" --backend cpu --threads 3 "$artifacts"/cases/*.case
    done
    # These differ in quantised products alone.
    for isa in avx_vnni avx512 avx512_bf16; do
      SLUICE_ISA=$isa suite "asan-cpu-$isa" "$artifacts/native/asan/tests/sluice_replay" --backend cpu --threads 3 "$artifacts"/cases/*-{linear,gated_linear,fused_qkv}.case
    done
    suite asan-reference "$artifacts/native/asan/tests/sluice_replay" --backend reference "$artifacts"/cases/*.case
    suite asan-simt "$artifacts/native/asan/tests/sluice_replay" --backend simt --seed 1 "$artifacts"/cases/*.case
    native_suites asan
    native tsan
    suite tsan-cpu "$artifacts/native/tsan/tests/sluice_replay" --backend cpu --threads 4 --streams 2 "$artifacts"/cases/*.case
    suite tsan-missing-syncwarp missing_syncwarp
    totals
    ;;
  cross)
    require_tools
    packages REQUIRED has_aarch64 g++-aarch64-linux-gnu "a C++ compiler for AArch64"
    packages REQUIRED has_qemu qemu-user "qemu for programs of other processors"
    packages REQUIRED has_mingw g++-mingw-w64-x86-64-posix "a C++ compiler for Windows"
    native windows
    suite windows-exports exports_check
    native aarch64
    [[ -f $artifacts/native/release/libsluice.so ]] || release off
    managed tests/Sluice.Tests.csproj
    cases
    export SLUICE_ISA=neon
    emulator=(qemu-aarch64 -L /usr/aarch64-linux-gnu)
    suite neon-weights "${emulator[@]}" "$artifacts/native/aarch64/tests/cpu_test" weights
    suite neon-cases "${emulator[@]}" "$artifacts/native/aarch64/tests/sluice_replay" --backend cpu --threads 2 --check yes "$artifacts"/cases/*.case
    totals
    ;;
  nvcc)
    require_tools
    want_nvcc
    tools/cuda13.sh
    native cuda
    nvcc --version | tail -n 2
    # The architectures of CI in the table, and no spill in any.
    table=$(tools/registers.sh "$artifacts/native/cuda") || { echo "build.sh: kernels spill registers" >&2; exit 1; }
    {
      printf 'nvcc %s; of each kernel all instantiations together, the most of each number. Spills, stack and shared memory in bytes.\n\n' "$(nvcc --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')"
      printf '%s\n' "$table"
    } | tee "$artifacts/registers.md"
    # What the loops of products issue, for the predicted times.
    if have python3 && have cuobjdump; then
      python3 -B tools/instructions.py "$artifacts"/native/cuda/cuda/CMakeFiles/*/__/kernels/linear_f16.cu.o > "$artifacts/instructions.tsv"
    fi
    ;;
  help) usage ;;
  *) echo "build.sh: unknown verb '$verb'" >&2; usage >&2; exit 2 ;;
esac
