using System.Collections.Concurrent;
using System.Runtime.InteropServices;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>The devices that cases run on here: one opened for each, for the whole run.</summary>
public static class Targets
{
    private static readonly ConcurrentDictionary<string, Lazy<Device>> Devices = new();

    private static readonly string[]? Named = Environment.GetEnvironmentVariable("SLUICE_TARGETS") is { Length: > 0 } named ? named.Split(',') : null;

    /// <summary>Every target that this build and machine may have, or those that SLUICE_TARGETS names (commas between); those that are absent skip with their reason.</summary>
    public static IReadOnlyList<string> Names { get; } = Named ??
    [
        .. RuntimeInformation.ProcessArchitecture == Architecture.Arm64
            ? (IEnumerable<string>)["cpu/portable", "cpu/neon"] : ["cpu/portable", "cpu/avx2", "cpu/avx_vnni", "cpu/avx512", "cpu/avx512_vnni", "cpu/avx512_bf16"],
        "simt/1", "simt/2", "simt/3", "simt/invariant", "cuda", "cuda/invariant",
    ];

    /// <summary>Whether a target that nobody has named runs a case: an instruction set that shares its other kernels with another runs those of its own.</summary>
    public static bool Runs(string target, OpCase c) => Named is not null || target switch
    {
        "cpu/avx_vnni" or "cpu/avx512" => c.Op != "embedding" && c.Weights.Values.Any(w => w.Encoding is (>= WeightEncoding.Q4_0 and <= WeightEncoding.Q6K) or WeightEncoding.INT8),
        "cpu/avx512_bf16" => c.Op != "embedding" && c.Weights.Values.Any(w => w.Encoding == WeightEncoding.BF16),
        "simt/3" => c.Name.Sum(letter => letter) % 3 == 0, // a third order of warps and blocks, for a third of the cases
        _ => true,
    };

    /// <summary>Of a target's name as <c>--isa</c> spells it: avx512_vnni.</summary>
    public static Isa IsaOf(string name) => Enum.Parse<Isa>(name.Replace("_", "", StringComparison.Ordinal), ignoreCase: true);

    /// <exception cref="SluiceException">The target is not here: no such device, or an instruction set that the processor lacks.</exception>
    public static Device Open(string name)
    {
        try
        {
            return Devices.GetOrAdd(name, n => new Lazy<Device>(() => Device.Open(Options(n)))).Value;
        }
        catch (SluiceException)
        {
            Devices.TryRemove(name, out _);
            throw;
        }
    }

    /// <summary>Closes a target that was lost, so that the next one who asks opens it anew.</summary>
    public static void Forget(string name)
    {
        if (Devices.TryRemove(name, out Lazy<Device>? device))
        {
            device.Value.Dispose();
        }
    }

    private static DeviceOptions Options(string name) => name switch
    {
        "truth" => new DeviceOptions(Backend.Reference),
        "naive" => new DeviceOptions(Backend.Reference) { Rounded = true },
        "cuda" => new DeviceOptions(Backend.Cuda),
        "cuda/invariant" => new DeviceOptions(Backend.Cuda) { Invariant = true },
        "simt/invariant" => new DeviceOptions(Backend.Simt) { Seed = 4, Invariant = true },
        _ when name.StartsWith("cpu/", StringComparison.Ordinal) => new DeviceOptions(Backend.Cpu) { Isa = IsaOf(name[4..]), Threads = name.StartsWith("cpu/avx512", StringComparison.Ordinal) ? 3 : 2 },
        _ when name.StartsWith("simt/", StringComparison.Ordinal) => new DeviceOptions(Backend.Simt) { Seed = ulong.Parse(name[5..], System.Globalization.CultureInfo.InvariantCulture) },
        _ => throw new ArgumentException($"no target is called {name}", nameof(name)),
    };
}
