using System.Globalization;
using System.Reflection;
using System.Text.Json;
using Sluice.Hub;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Tuning;

/// <summary>
/// Switch points that were measured on a kind of device, kept for whoever opens one: a file a kind in <c>switch-points</c> of the cache folder
/// (<c>SLUICE_CACHE</c>, else the platform's). One of another version of this library is as good as none.
/// </summary>
public static class TunedDevice
{
    private const int MostRows = 1 << 20;

    /// <summary>The version that a file is for.</summary>
    private static string Version { get; } = typeof(TunedDevice).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion.Split('+')[0] ?? "0";

    /// <summary>Where the switch points of this kind of device are kept.</summary>
    /// <exception cref="HubException">There is no home folder, and no <c>SLUICE_CACHE</c>.</exception>
    public static string PathOf(DeviceInfo device) => PathOf(device, HubOptions.FromEnvironment().CacheFolder);

    internal static string PathOf(DeviceInfo device, string cacheFolder) =>
        Path.Combine(Path.GetFullPath(cacheFolder), "switch-points", string.Concat(device.Name.Select(c => char.IsAsciiLetterOrDigit(c) ? char.ToLowerInvariant(c) : '-')) + $"-sm{device.ComputeCapability}.json");

    /// <summary>Keeps what was measured.</summary>
    /// <exception cref="IOException">The file cannot be written.</exception>
    /// <exception cref="UnauthorizedAccessException">The file may not be written.</exception>
    public static void Write(string path, DeviceInfo device, SwitchPoints points, IReadOnlyList<RouteTime> times)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
        OutputPlace.File(path, stream =>
        {
            using Utf8JsonWriter w = new(stream, new JsonWriterOptions { Indented = true });
            w.WriteStartObject();
            w.WriteString("device", device.Name);
            w.WriteString("version", Version);
            w.WriteString("measured", DateTime.UtcNow.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture));
            foreach ((string name, int[] numbers) in new[] { ("few", points.Few), ("narrow", points.Narrow), ("dense", points.Dense) })
            {
                w.WriteStartArray(name);
                foreach (int n in numbers)
                {
                    w.WriteNumberValue(n);
                }

                w.WriteEndArray();
            }

            w.WriteStartArray("times_us");
            foreach (RouteTime t in times)
            {
                w.WriteStartObject();
                w.WriteString("kept", t.Kept.ToString());
                w.WriteNumber("rows", t.Rows);
                foreach ((string name, double? time) in new[] { ("few", t.Few), ("narrow", t.Narrow), ("wide", t.Wide), ("dense", t.Dense) })
                {
                    if (time is { } us)
                    {
                        w.WriteNumber(name, Math.Round(us, 2));
                    }
                }

                w.WriteEndObject();
            }

            w.WriteEndArray();
            w.WriteEndObject();
            return 0;
        });
    }

    /// <summary>What is kept for this kind of device, or null: nothing, or what another version measured.</summary>
    /// <exception cref="ModelFormatException">The file is not what this library writes; the text says where, and to measure anew.</exception>
    public static SwitchPoints? Read(string path, DeviceInfo device)
    {
        if (!File.Exists(path))
        {
            return null;
        }

        JsonValue file = JsonValue.ReadFile(path);
        if (file.Require("device").Text() != device.Name || file.Require("version").Text() != Version)
        {
            return null;
        }

        return new SwitchPoints { Few = Numbers("few", 0, 8), Narrow = Numbers("narrow", 0, MostRows), Dense = Numbers("dense", -1, MostRows) };

        int[] Numbers(string name, int least, int most)
        {
            JsonValue field = file.Require(name);
            int[] numbers = [.. field.Items().Select(i => (int)i.Integer(least, most))];
            return numbers.Length == (int)Kept.Kinds ? numbers
                : throw field.Malformed($"has {numbers.Length} numbers, and weights are kept in {(int)Kept.Kinds} ways: delete the file, or measure anew with 'sluice tune'");
        }
    }

    /// <summary>Gives a device what is kept for its kind. Before its first stream.</summary>
    /// <returns>Whether there was something.</returns>
    /// <exception cref="ModelFormatException">As <see cref="Read"/>.</exception>
    internal static bool Apply(Device device, Func<DeviceInfo, string> pathOf)
    {
        if (device.Backend is not (Backend.Cuda or Backend.Simt))
        {
            return false;
        }

        string path;
        try
        {
            path = pathOf(device.Info);
        }
        catch (HubException)
        {
            return false; // no home folder: nothing was ever kept
        }

        if (Read(path, device.Info) is not { } points)
        {
            return false;
        }

        device.SwitchPoints = points;
        return true;
    }
}
