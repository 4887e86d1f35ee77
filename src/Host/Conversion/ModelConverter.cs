using System.Runtime.InteropServices;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Conversion;

/// <summary>What a conversion did.</summary>
/// <param name="Tensors">Tensors written, by type.</param>
/// <param name="Bytes">Bytes of weights written.</param>
/// <param name="RelativeError">Square root of the sum of squared changes over the sum of squared weights; 0: nothing was lost.</param>
/// <param name="LargestError">The largest change of a weight.</param>
/// <param name="LargestErrorTensor">Where it is; empty where nothing was lost.</param>
public sealed record ConversionReport(IReadOnlyDictionary<string, int> Tensors, long Bytes, double RelativeError, double LargestError, string LargestErrorTensor)
{
    /// <summary>What Sluice reads back from the file and other readers may pass over.</summary>
    public IReadOnlyList<string> Notes { get; init; } = [];
}

/// <summary>Converts models between GGUF files and Hugging Face folders, and from one type of weights to another.</summary>
public static class ModelConverter
{
    /// <summary>The types that matrices can be written as: all into GGUF, the floats into a folder.</summary>
    public static IReadOnlyList<TensorType> Types { get; } = [.. Enum.GetValues<TensorType>().Where(Quantizer.Supports)];

    /// <summary>
    /// Converts a model. Vectors stay in f32. A matrix whose rows are no whole blocks of the type is written in the next finer type that fits, and
    /// embedding and output of a 4- or 5-bit file in Q8_0 or Q6_K, as quantisers keep them finer.
    /// </summary>
    /// <param name="input">A GGUF file or a Hugging Face folder.</param>
    /// <param name="output">A name that ends in .gguf, or a folder to make, which must not exist or be empty. Appears when it is complete.</param>
    /// <param name="type">How matrices are stored; null: as they are, and F16 where the other kind of file has no such type.</param>
    /// <param name="progress">Told after each piece, in bytes of the input's values as f32.</param>
    /// <param name="cancellation">Stops the work and removes what is unfinished.</param>
    /// <exception cref="ArgumentException">The type cannot be written into that kind of file.</exception>
    /// <exception cref="SluiceModelException">The model is malformed, or has something that the other kind of file cannot say.</exception>
    /// <exception cref="IOException">The output exists, or cannot be written.</exception>
    /// <exception cref="OperationCanceledException">The work was cancelled.</exception>
    public static ConversionReport Convert(string input, string output, TensorType? type, IProgress<ByteProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(output);
        bool gguf = output.EndsWith(".gguf", StringComparison.OrdinalIgnoreCase);
        if (type is { } wanted && (!Types.Contains(wanted) || (!gguf && !TensorTypes.IsFloat(wanted))))
        {
            IEnumerable<TensorType> possible = gguf ? Types : Types.Where(TensorTypes.IsFloat);
            throw new ArgumentException($"{TensorTypes.Name(wanted)} cannot be written into a {(gguf ? "GGUF file" : "Hugging Face folder")}; {string.Join(", ", possible.Select(TensorTypes.Name))} can");
        }

        using ModelSource source = ModelSource.Open(input);
        ModelConfig config = source.ReadConfig();
        ModelTensors tensors = ModelTensors.Check(source, config);
        Tokenizer tokenizer = source.ReadTokenizer();
        string? template = source.ReadChatTemplate();
        using Device device = Device.Open(new DeviceOptions(Backend.Cpu));
        using ComputeStream stream = device.CreateStream();
        if (gguf)
        {
            return OutputPlace.File(output, file =>
            {
                List<OutputTensor> plan = GgufModelWriter.Plan(config, tensors, type);
                GgufWriter writer = new(file);
                GgufModelWriter.AddMetadata(writer, config, tokenizer, template, type);
                (string Name, float[] Factors)[] factors = [.. GgufModelWriter.RopeFactors(config.Ropes[0])];
                plan.ForEach(t => writer.AddTensor(t.Name, t.Type, t.IsVector ? [t.Columns] : [t.Columns, t.Rows]));
                Array.ForEach(factors, f => writer.AddTensor(f.Name, TensorType.F32, f.Factors.Length));
                TensorWriter values = new(stream, plan, writer.Write, progress, cancellation);
                plan.ForEach(values.Write);
                Array.ForEach(factors, f => writer.Write(MemoryMarshal.AsBytes(f.Factors.AsSpan())));
                writer.Finish();
                return values.Report() with { Notes = [.. GgufModelWriter.Notes(config, tokenizer)] };
            });
        }

        return OutputPlace.Folder(output, folder => HuggingFaceModelWriter.Write(folder, config, tensors, tokenizer, template, type, stream, progress, cancellation));
    }
}
