using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Tuning;

namespace Sluice.Console;

/// <summary>sluice tune: measures where a GPU's products change their kernels, and keeps it for every later run on its kind.</summary>
internal static class TuneCommand
{
    public static Command Create()
    {
        TuningOptions defaults = new();
        Option<string> backend = ModelArguments.Choice("--device", "Which device", "cuda", ["cuda", "simt"]);
        Option<int> ordinal = new("--ordinal") { Description = "Which GPU", DefaultValueFactory = _ => 0 };
        Option<int> size = new("--size") { Description = "Rows and columns of the weights", DefaultValueFactory = _ => defaults.Size };
        Option<int> most = new("--most-rows") { Description = "Rows of activations at most", DefaultValueFactory = _ => defaults.MostRows };
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("tune", "Measure where a GPU's products change their kernels, and keep it.") { backend, ordinal, size, most, json };
        command.SetAction(async (parsed, cancellation) =>
        {
            using Device device = Device.Open(new DeviceOptions(parsed.GetValue(backend) == "simt" ? Backend.Simt : Backend.Cuda) { Ordinal = parsed.GetValue(ordinal) });
            DeviceInfo info = device.Info;
            Terminal.Note(ModelArguments.Describe(info));
            string path = TunedDevice.PathOf(info);
            TuningOptions options = new() { Size = parsed.GetValue(size), MostRows = parsed.GetValue(most) };
            IReadOnlyList<RouteTime> times = await Terminal.WithProgressAsync<IReadOnlyList<RouteTime>, ByteProgress>(
                "measuring", p => (p.Done, p.Total), progress => Task.Run(() => RouteTimes.Measure(device, options, progress, cancellation), cancellation));
            SwitchPoints points = RouteTimes.Choose(times);
            TunedDevice.Write(path, info, points, times);
            if (parsed.GetValue(json))
            {
                System.Console.Out.WriteLine(JsonSerializer.Serialize(new TuneOutput(info.Name, path, options.Size, points.Few, points.Narrow, points.Dense, times), JsonOutput.Lines.TuneOutput));
                return 0;
            }

            System.Console.Out.WriteLine($"microseconds of a product with a weight of {options.Size:N0} x {options.Size:N0}, by rows of activations");
            foreach (IGrouping<Kept, RouteTime> kept in times.GroupBy(t => t.Kept))
            {
                int k = (int)kept.Key;
                System.Console.Out.WriteLine($"{Name(kept.Key)}: few up to {points.Few[k]}, narrow up to {points.Narrow[k]}, dense {(points.Dense[k] > 0 ? $"from {points.Dense[k]}" : "never")}");
                System.Console.Out.WriteLine("    rows        few     narrow       wide      dense");
                foreach (RouteTime t in kept)
                {
                    System.Console.Out.WriteLine($"{t.Rows,8} {Cell(t.Few)} {Cell(t.Narrow)} {Cell(t.Wide)} {Cell(t.Dense)}");
                }
            }

            System.Console.Out.WriteLine($"kept in {path}");
            return 0;
        });
        return command;

        static string Cell(double? us) => (us?.ToString("0.0", CultureInfo.InvariantCulture) ?? "-").PadLeft(10);
    }

    private static string Name(Kept kept) => kept switch { Kept.Dense => "16 bits", Kept.Four => "4 bits", Kept.Five => "5 bits", Kept.Six => "6 bits", _ => "8 bits" };
}
