using System.Collections.Concurrent;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>The devices that cases run on here: one opened for each, for the whole run.</summary>
public static class Targets
{
    private static readonly ConcurrentDictionary<string, Lazy<Device>> Devices = new();

    /// <summary>Every target that this build and machine may have, or those that SLUICE_TARGETS names (commas between); those that are absent skip with their reason.</summary>
    public static IReadOnlyList<string> Names { get; } = Environment.GetEnvironmentVariable("SLUICE_TARGETS") is { Length: > 0 } named
        ? named.Split(',')
        : ["cpu/portable", "cpu/avx2", "cpu/avx512", "simt/1", "simt/2", "simt/3", "simt/invariant", "cuda", "cuda/invariant"];

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
        "cpu/portable" => new DeviceOptions(Backend.Cpu) { Isa = Isa.Portable, Threads = 2 },
        "cpu/avx2" => new DeviceOptions(Backend.Cpu) { Isa = Isa.AVX2, Threads = 2 },
        "cpu/avx512" => new DeviceOptions(Backend.Cpu) { Isa = Isa.AVX512, Threads = 3 },
        "cuda" => new DeviceOptions(Backend.Cuda),
        "cuda/invariant" => new DeviceOptions(Backend.Cuda) { Invariant = true },
        "simt/invariant" => new DeviceOptions(Backend.Simt) { Seed = 4, Invariant = true },
        _ when name.StartsWith("simt/", StringComparison.Ordinal) => new DeviceOptions(Backend.Simt) { Seed = ulong.Parse(name[5..], System.Globalization.CultureInfo.InvariantCulture) },
        _ => throw new ArgumentException($"no target is called {name}", nameof(name)),
    };
}
