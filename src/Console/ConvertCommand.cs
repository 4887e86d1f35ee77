using System.CommandLine;
using System.Globalization;
using Sluice.Conversion;
using Sluice.Loading;

namespace Sluice.Console;

/// <summary>sluice convert IN OUT --type T: from one kind of model file to the other, or from one type of weights to another.</summary>
internal static class ConvertCommand
{
    private const string AsTheyAre = "keep";

    public static Command Create()
    {
        Dictionary<string, TensorType> types = ModelConverter.Types.ToDictionary(t => TensorTypes.Name(t).ToLowerInvariant());
        Argument<string> input = new("IN") { Description = ModelArguments.ModelText };
        Argument<string> output = new("OUT") { Description = "The model to write: a name that ends in .gguf, or a folder in Hugging Face's form" };
        Option<string> type = ModelArguments.Choice("--type", "Element type of the matrices; a folder takes f32, f16 and bf16", AsTheyAre, [AsTheyAre, .. types.Keys]);
        Command command = new("convert", "Convert a model between GGUF and Hugging Face's form, or to another type, and tell what is lost.") { input, output, type };
        command.SetAction(async (parsed, cancellation) =>
        {
            string from = await ModelArguments.ResolveAsync(parsed.GetValue(input)!, cancellation), to = parsed.GetValue(output)!;
            TensorType? wanted = types.TryGetValue(parsed.GetValue(type)!, out TensorType named) ? named : null;
            ConversionReport report = await Terminal.WithProgressAsync<ConversionReport, ByteProgress>("converting", p => (p.Done, p.Total), progress =>
                Task.Run(() => ModelConverter.Convert(from, to, wanted, progress, cancellation), cancellation));
            System.Console.Out.WriteLine(string.Create(CultureInfo.InvariantCulture, $"wrote {to}: {report.Bytes / 1e6:0.0} MB, {string.Join(", ", report.Tensors.Select(t => $"{t.Value} {t.Key}"))}"));
            System.Console.Out.WriteLine(report.RelativeError == 0 ? "no weight has changed" : string.Create(
                CultureInfo.InvariantCulture, $"relative error of the weights {report.RelativeError:0.00e+0} (root mean square), largest change {report.LargestError:0.00e+0} in {report.LargestErrorTensor}"));
            foreach (string note in report.Notes)
            {
                System.Console.Out.WriteLine($"note: {note}");
            }

            return 0;
        });
        return command;
    }
}
