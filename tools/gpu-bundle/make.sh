#!/usr/bin/env bash
# One archive for a GPU machine that has nvcc, CMake and a driver, and no .NET: artifacts/gpu-bundle.tar.gz.
# native sources; tests, benchmarks and console self-contained on one runtime; kernel cases; small models.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
artifacts=$PWD/artifacts bundle=$PWD/artifacts/gpu-bundle
most=45000000
rm -rf "$bundle" "$bundle.tar.gz"
mkdir -p "$bundle/bin"

for project in src/Console/Sluice.Console.csproj tests/Sluice.Tests.csproj perf/Sluice.Perf.csproj; do
  # Not trimmed, not one file: three programs beside one runtime. The native library is built over there.
  dotnet publish $project -c Release -r linux-x64 --self-contained -p:PublishSingleFile=false -p:PublishTrimmed=false -p:SatelliteResourceLanguages=en \
    -p:SluiceNative=/nonexistent -p:DebugType=none -v quiet -clp:NoSummary -o "$bundle/bin" >&2
done
cp "$bundle/bin/Sluice.Console" "$bundle/bin/sluice"
# What nothing here loads, half of the size: debuggers' parts of the runtime, its other collectors, BenchmarkDotNet and its
# compilers (the bundle times ops by itself). Without the manifests the host takes what lies in the folder.
(cd "$bundle/bin" && rm -f ./*.deps.json ./*.xml ./*.pdb createdump libmscordaccore.so libmscordbi.so libclrgc*.so libcoreclrtraceptprovider.so \
  libcapstone.so BenchmarkDotNet*.dll Microsoft.CodeAnalysis*.dll Microsoft.Diagnostics.*.dll Iced.dll Dia2Lib.dll TraceReloggerLib.dll \
  Perfolizer.dll Gee.External.Capstone.dll Microsoft.VisualBasic.Core.dll System.Private.DataContractSerialization.dll \
  System.Data.Common.dll System.Linq.Parallel.dll System.Linq.AsyncEnumerable.dll System.Text.Encoding.CodePages.dll System.Net.Quic.dll System.Net.Mail.dll)

cp -r native "$bundle/native"
cp tools/gpu-bundle/run.sh tools/gpu-bundle/torch_peers.py "$bundle/"
git rev-parse HEAD > "$bundle/COMMIT" 2>/dev/null || echo unknown > "$bundle/COMMIT"

shared=${SLUICE_SHARED:-$PWD/../shared}
if [[ -d $shared/models ]]; then
  mkdir -p "$bundle/shared/models/stories260K" "$bundle/shared/models/tiny" "$bundle/shared/goldens"
  cp "$shared"/models/stories260K/*.gguf "$bundle/shared/models/stories260K/"
  for name in tiny-llama-q4_0 tiny-qwen2-q4_0; do cp "$shared/models/tiny/$name.gguf" "$bundle/shared/models/tiny/"; done
  cp "$shared"/goldens/*.json "$shared"/goldens/*.f32 "$bundle/shared/goldens/"
else
  echo "gpu-bundle: note: no models are here (SLUICE_SHARED), so the bundle's stage 'generate' will have none" >&2
fi

# The programs are three quarters of it, and xz makes them a quarter smaller than gzip. CMake unpacks it there: it must be there anyway.
(cd "$bundle" && cmake -E tar cJf bin.tar.xz bin && rm -r bin)
tar -C "$artifacts" -cf - gpu-bundle | gzip -9 > "$bundle.tar.gz"
size=$(stat -c %s "$bundle.tar.gz")
echo "gpu-bundle: $bundle.tar.gz, $((size / 1000000)) MB"
if ((size > most)); then echo "gpu-bundle: larger than $((most / 1000000)) MB" >&2; exit 1; fi
