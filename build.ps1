# Builds native, then managed, on Windows (and wherever PowerShell runs): the verbs of build.sh.
# Native code wants clang-cl or g++ on the PATH (the sources use GCC's builtins), CMake and Ninja.
[CmdletBinding()]
param(
    [Parameter(Position = 0)][ValidateSet('build', 'demo', 'test', 'bench', 'soak', 'fmt', 'bindings', 'pack', 'publish', 'gpu-bundle', 'sanitize', 'nvcc', 'help')]
    [string]$Verb = 'build',
    [ValidateSet('auto', 'on', 'off')][string]$Cuda = '',
    [switch]$Install,
    [switch]$Counts,
    [Parameter(ValueFromRemainingArguments)][string[]]$Rest = @()
)
$ErrorActionPreference = 'Stop'
Set-StrictMode -Version Latest
Set-Location $PSScriptRoot
$env:DOTNET_CLI_TELEMETRY_OPTOUT = '1'

# On Linux the one script serves both shells.
if (-not $IsWindows -and $null -ne (Get-Variable IsWindows -ErrorAction Ignore)) {
    $arguments = @($Verb)
    if ($Cuda) { $arguments += '--cuda', $Cuda }
    if ($Install) { $arguments += '--install' }
    if ($Counts) { $arguments += '--counts' }
    if ($Rest.Count -gt 0) { $arguments += '--'; $arguments += $Rest }
    & "$PSScriptRoot/build.sh" @arguments
    exit $LASTEXITCODE
}

$artifacts = Join-Path $PSScriptRoot 'artifacts'
$null = New-Item -ItemType Directory -Force $artifacts

function Invoke-Checked([string]$Program, [string[]]$Arguments) {
    & $Program @Arguments
    if ($LASTEXITCODE -ne 0) { throw "$Program failed with exit code $LASTEXITCODE" }
}
function Assert-Tool([string]$Name, [string]$Install) {
    if (-not (Get-Command $Name -ErrorAction Ignore)) { throw "$Name is missing: $Install" }
}
function Build-Native([string]$Preset, [string[]]$Options) {
    Assert-Tool cmake 'winget install Kitware.CMake'
    Assert-Tool ninja 'winget install Ninja-build.Ninja'
    $cudaOption = switch ($(if ($Cuda) { $Cuda } else { 'auto' })) {
        'on' { 'ON' } 'off' { 'OFF' } default { if (Get-Command nvcc -ErrorAction Ignore) { 'ON' } else { 'OFF' } }
    }
    Push-Location native
    try { Invoke-Checked cmake (@('--preset', $Preset, '-G', 'Ninja', "-DSL_CUDA=$cudaOption") + $Options) } finally { Pop-Location }
    Invoke-Checked cmake @('--build', (Join-Path $artifacts "native/$Preset"), '--parallel')
}
function Build-Managed([string]$Project) { Invoke-Checked dotnet @('build', $Project, '-c', 'Release', '-v', 'quiet', "-p:SluiceNative=$artifacts/native/release/sluice.dll") }
function Build-Console {
    Build-Managed 'src/Console/Sluice.Console.csproj'
    $null = New-Item -ItemType Directory -Force "$artifacts/bin"
    Copy-Item "$artifacts/dotnet/bin/Sluice.Console/release/*" "$artifacts/bin" -Recurse -Force
    Copy-Item "$artifacts/bin/Sluice.Console.exe" "$artifacts/bin/sluice.exe" -Force
}
function Get-SimtOption { if ($env:BOOST_ROOT) { '-DSL_WITH_SIMT=ON' } else { '-DSL_WITH_SIMT=OFF' } }

switch ($Verb) {
    'build' { Build-Native release @(Get-SimtOption); Build-Console }
    'demo' {
        if (-not (Test-Path "$artifacts/bin/sluice.exe")) { Build-Native release @(Get-SimtOption); Build-Console }
        if ($env:SLUICE_DEMO_MODEL) {
            $prompt = if ($env:SLUICE_DEMO_PROMPT) { $env:SLUICE_DEMO_PROMPT } else { 'Once upon a time' }
            Invoke-Checked "$artifacts/bin/sluice.exe" @('generate', $env:SLUICE_DEMO_MODEL, '--prompt', $prompt, '--max-tokens', '100')
        }
        else {
            'Tell me a story about Mia and a kite.', 'Who found the kite?', 'What is 347 + 285?' | & "$artifacts/bin/sluice.exe" chat models/tales --temperature 0
            if ($LASTEXITCODE -ne 0) { throw "the demo failed with exit code $LASTEXITCODE" }
        }
    }
    'test' {
        Build-Native release @(Get-SimtOption)
        Build-Managed 'Sluice.slnx'
        Build-Console
        & "$artifacts/dotnet/bin/Sluice.Tests/release/Sluice.Tests.exe" -parallel all | Tee-Object -Variable output
        $code = $LASTEXITCODE
        $line = @($output | Select-String 'Total: (\d+), Errors: (\d+), Failed: (\d+), Skipped: (\d+)')[-1].Matches[0].Groups
        $failed = [int]$line[2].Value + [int]$line[3].Value
        "{0} passed, {1} failed, {2} skipped" -f ([int]$line[1].Value - [int]$line[3].Value - [int]$line[4].Value), $failed, $line[4].Value
        exit $code
    }
    'bench' { Build-Native release @(Get-SimtOption); Build-Managed 'perf/Sluice.Perf.csproj'; Invoke-Checked "$artifacts/dotnet/bin/Sluice.Perf/release/Sluice.Perf.exe" $Rest }
    'soak' { Build-Native release @(Get-SimtOption); Build-Managed 'perf/Sluice.Perf.csproj'; Invoke-Checked "$artifacts/dotnet/bin/Sluice.Perf/release/Sluice.Perf.exe" (@('soak') + $Rest) }
    'fmt' { Invoke-Checked dotnet @('format', 'Sluice.slnx') }
    'bindings' {
        Assert-Tool clang 'winget install LLVM.LLVM'
        Invoke-Checked dotnet @('run', '--project', 'tools/Bindgen', '--', 'native/include/sluice.h', 'src/Interop/NativeMethods.g.cs', 'native/abi/layout.g.inc')
    }
    'pack' {
        Build-Native package @()
        foreach ($project in 'src/Interop/Sluice.Interop.csproj', 'src/Host/Sluice.csproj') {
            Invoke-Checked dotnet @('pack', $project, '-c', 'Release', '-o', "$artifacts/packages", "-p:SluiceNative=$artifacts/native/package/sluice.dll")
        }
        # What build.sh asks the server is not asked here.
        foreach ($sample in 'Embed', 'Serve') {
            $folder = "$artifacts/$($sample.ToLowerInvariant())"
            if (Test-Path $folder) { Remove-Item $folder -Recurse -Force }
            Invoke-Checked dotnet @('publish', "samples/$sample/$sample.csproj", '-c', 'Release', '-v', 'quiet', "-p:RestorePackagesPath=$folder/packages", '-o', "$folder/bin")
        }
        Invoke-Checked "$artifacts/embed/bin/Embed.exe" @($(if ($env:SLUICE_DEMO_MODEL) { $env:SLUICE_DEMO_MODEL } else { 'models/tales' }))
    }
    'publish' {
        Build-Native package @()
        Invoke-Checked dotnet @('publish', 'src/Console/Sluice.Console.csproj', '-c', 'Release', '-r', 'win-x64', '--self-contained', '-p:PublishTrimmed=true', '-p:PublishSingleFile=true',
            "-p:SluiceNative=$artifacts/native/package/sluice.dll", '-o', "$artifacts/publish/files")
    }
    'help' { Get-Content "$PSScriptRoot/build.sh" | Select-Object -Skip 7 -First 25 }
    default { throw "$Verb is done on Linux: ./build.sh $Verb" }
}
