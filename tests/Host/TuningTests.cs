using System.Text.Json;
using Sluice.Interop;
using Sluice.Tests.Golden;
using Sluice.Tuning;

namespace Sluice.Tests.Host;

/// <summary>Switch points: how they are chosen from times, kept for a kind of device, and given to it.</summary>
public sealed class TuningTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("sluice-tuning").FullName;
    private static readonly DeviceInfo s_device = new(Backend.Cuda, "A GPU (80 GB)", 0, Isa.Best, 90, 1, 1);

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Each_way_is_taken_where_no_other_is_faster()
    {
        RouteTime[] four =
        [
            new(Kept.Four, 1, 10, 14, 20, 50), new(Kept.Four, 4, 11, 14, 20, 50), new(Kept.Four, 8, 16, 15, 20, 50), new(Kept.Four, 16, null, 16, 20, 50), new(Kept.Four, 32, null, 20, 21, 50),
            new(Kept.Four, 64, null, 35, 25, 24), new(Kept.Four, 128, null, 70, 40, 41), new(Kept.Four, 256, null, 140, 80, 70), new(Kept.Four, 512, null, 280, 160, 120),
        ];
        SwitchPoints points = RouteTimes.Choose([.. four, .. Others(Kept.Four)]);
        Assert.Equal((4, 32, 256), (points.Few[(int)Kept.Four], points.Narrow[(int)Kept.Four], points.Dense[(int)Kept.Four]));
    }

    // Tiles of 16 rows are asked for before weights go to 16 bits: they must not hide it.
    [Fact]
    public void Narrow_tiles_end_where_dense_products_begin()
    {
        RouteTime[] four = [new(Kept.Four, 1, 10, 14, 20, 50), new(Kept.Four, 48, null, 30, 32, 25), new(Kept.Four, 96, null, 50, 55, 30), new(Kept.Four, 128, null, 90, 80, 40)];
        SwitchPoints points = RouteTimes.Choose([.. four, .. Others(Kept.Four)]);
        Assert.Equal((1, 47, 48), (points.Few[(int)Kept.Four], points.Narrow[(int)Kept.Four], points.Dense[(int)Kept.Four]));
    }

    [Fact]
    public void A_way_that_never_wins_is_never_taken()
    {
        RouteTime[] dense = [new(Kept.Dense, 1, 12, 14, 10, null), new(Kept.Dense, 16, null, 14, 10, null), new(Kept.Dense, 512, null, 140, 100, null)];
        SwitchPoints points = RouteTimes.Choose([.. dense, .. Others(Kept.Dense)]);
        Assert.Equal((0, 0, 0), (points.Few[0], points.Narrow[0], points.Dense[0]));
        Assert.Contains("kept as Four", Assert.Throws<ArgumentException>(() => RouteTimes.Choose(dense)).Message);
    }

    [Fact]
    public void What_was_measured_is_found_again_by_its_kind_and_version_alone()
    {
        string path = TunedDevice.PathOf(s_device, _folder);
        Assert.StartsWith(Path.Combine(_folder, "switch-points") + Path.DirectorySeparatorChar, path, StringComparison.Ordinal);
        Assert.Null(TunedDevice.Read(path, s_device));
        SwitchPoints points = Points(3);
        TunedDevice.Write(path, s_device, points, [new(Kept.Six, 4, 1.5, null, 2, 3)]);
        SwitchPoints read = TunedDevice.Read(path, s_device)!;
        Assert.Equal((points.Few[2], points.Narrow[4], points.Dense[1]), (read.Few[2], read.Narrow[4], read.Dense[1]));
        Assert.Null(TunedDevice.Read(path, s_device with { Name = "another" }));
        File.WriteAllText(path, File.ReadAllText(path).Replace("\"version\": \"", "\"version\": \"9", StringComparison.Ordinal));
        Assert.Null(TunedDevice.Read(path, s_device));
    }

    [Theory]
    [InlineData("\"few\": [", "\"few\": [7, ", "6 numbers")]
    [InlineData("\"narrow\": [", "\"narrow\": [-5, ", "-5")]
    [InlineData("\"dense\"", "\"dens\"", "dense")]
    [InlineData("{", "[", "JSON")]
    public void A_file_that_somebody_changed_is_named(string what, string by, string said)
    {
        string path = TunedDevice.PathOf(s_device, _folder);
        TunedDevice.Write(path, s_device, Points(2), []);
        string text = File.ReadAllText(path);
        int at = text.IndexOf(what, StringComparison.Ordinal);
        File.WriteAllText(path, text[..at] + by + text[(at + what.Length)..]);
        ModelFormatException e = Assert.Throws<ModelFormatException>(() => TunedDevice.Read(path, s_device));
        Assert.Contains(path, e.Message);
        Assert.Contains(said, e.Message);
    }

    [Fact]
    public void A_device_gets_what_is_kept_for_its_kind()
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        using Device device = Device.Open(Backend.Simt), other = Device.Open(Backend.Simt), cpu = Device.Open(Backend.Cpu);
        Assert.False(TunedDevice.Apply(device, d => TunedDevice.PathOf(d, _folder)));
        TunedDevice.Write(TunedDevice.PathOf(device.Info, _folder), device.Info, Points(5), []);
        Assert.True(TunedDevice.Apply(device, d => TunedDevice.PathOf(d, _folder)));
        Assert.Equal(5, device.SwitchPoints.Few[1]);
        Assert.NotEqual(5, other.SwitchPoints.Few[1]);
        Assert.False(TunedDevice.Apply(cpu, d => TunedDevice.PathOf(d, _folder)));
    }

    [Fact]
    public void The_console_measures_keeps_and_uses()
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        (int code, string output, string error) = ConsoleProgram.Run([("SLUICE_CACHE", _folder)], "", "tune", "--device", "simt", "--size", "256", "--most-rows", "16", "--json");
        Assert.True(code == 0, error);
        using JsonDocument json = JsonDocument.Parse(output);
        string file = json.RootElement.GetProperty("file").GetString()!;
        Assert.True(File.Exists(file));
        JsonElement times = json.RootElement.GetProperty("times_us");
        Assert.Equal(7 * (int)Kept.Kinds, times.GetArrayLength());
        foreach (JsonElement t in times.EnumerateArray())
        {
            int rows = t.GetProperty("rows").GetInt32();
            bool dense = t.GetProperty("kept").GetInt32() == (int)Kept.Dense;
            Assert.Equal(rows <= 8, t.TryGetProperty("few", out _));
            Assert.Equal(!dense, t.TryGetProperty("dense", out _)); // no vendor's library here
            Assert.True(t.GetProperty("narrow").GetDouble() > 0 && t.GetProperty("wide").GetDouble() > 0);
        }

        (code, _, error) = ConsoleProgram.Run([("SLUICE_CACHE", _folder)], "", "tune", "--device", "simt", "--size", "100");
        Assert.Equal(1, code);
        Assert.Contains("a size may be 256", error);

        // A damaged file is told when a model is loaded.
        File.WriteAllText(file, "{}");
        (code, _, error) = ConsoleProgram.Run([("SLUICE_CACHE", _folder)], "", "generate", SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"), "--prompt", "a", "--max-tokens", "1", "--device", "simt");
        Assert.Equal(1, code);
        Assert.Contains("switch-points", error);
    }

    private static SwitchPoints Points(int few) => new() { Few = [few, few, few, few, few], Narrow = [16, 32, 8, 64, 24], Dense = [0, 300, -1, 500, 600] };

    private static IEnumerable<RouteTime> Others(Kept but) => Enum.GetValues<Kept>().Where(k => k != Kept.Kinds && k != but).Select(k => new RouteTime(k, 1, 1, 2, 3, 4));
}
