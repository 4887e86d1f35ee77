using System.Globalization;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Tokenization;

namespace Sluice.Models;

/// <summary>A model in a GGUF file, or in several that belong together (<c>-00001-of-00003.gguf</c>).</summary>
public sealed class GgufModel : ModelSource
{
    private const int MostParts = 9_999;

    private static readonly Dictionary<TensorType, WeightEncoding> Encodings = new()
    {
        [TensorType.F32] = WeightEncoding.F32, [TensorType.F16] = WeightEncoding.F16, [TensorType.BF16] = WeightEncoding.BF16,
        [TensorType.Q4_0] = WeightEncoding.Q4_0, [TensorType.Q4_1] = WeightEncoding.Q4_1, [TensorType.Q5_0] = WeightEncoding.Q5_0,
        [TensorType.Q5_1] = WeightEncoding.Q5_1, [TensorType.Q8_0] = WeightEncoding.Q8_0, [TensorType.Q4_K] = WeightEncoding.Q4K,
        [TensorType.Q5_K] = WeightEncoding.Q5K, [TensorType.Q6_K] = WeightEncoding.Q6K,
    };

    private readonly List<GgufFile> _files = [];
    private readonly Dictionary<string, (GgufFile File, GgufTensor Tensor)> _tensors = new(StringComparer.Ordinal);

    private GgufModel(string path)
        : base(path)
    {
    }

    /// <summary>The file that holds the metadata: the only one, or the first.</summary>
    public GgufFile Head => _files[0];

    /// <summary>All files, in order.</summary>
    public IReadOnlyList<GgufFile> Files => _files;

    /// <inheritdoc/>
    public override string Format => _files.Count == 1 ? $"GGUF v{Head.Version}" : $"GGUF v{Head.Version} in {_files.Count} files";

    /// <inheritdoc/>
    public override long Length => _files.Sum(f => f.Length);

    /// <inheritdoc/>
    public override IReadOnlyList<TensorInfo> Tensors =>
        [.. _files.SelectMany(f => f.Tensors).Select(t => new TensorInfo(t.Name, TensorTypes.Name(t.Type), t.Dimensions, t.ByteLength))];

    /// <summary>Opens a file and, where it is a part of a model, the others beside it.</summary>
    /// <inheritdoc cref="ModelSource.Open"/>
    public static new GgufModel Open(string path, bool memoryMap = true)
    {
        GgufModel model = new(path);
        try
        {
            model.OpenParts(path, memoryMap);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>The number of parts that a file's name tells and where its number stands (<c>model-00002-of-00003.gguf</c>), or null.</summary>
    internal static (string Prefix, int Number, int Count)? PartOf(string path)
    {
        const string Suffix = ".gguf";
        string stem = path.EndsWith(Suffix, StringComparison.OrdinalIgnoreCase) ? path[..^Suffix.Length] : "";
        ReadOnlySpan<char> tail = stem.Length > 15 ? stem.AsSpan(stem.Length - 15) : [];
        return tail.Length == 15 && tail[0] == '-' && tail[6..10] is "-of-"
            && int.TryParse(tail[1..6], NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            && int.TryParse(tail[10..], NumberStyles.None, CultureInfo.InvariantCulture, out int count)
            && number >= 1 && number <= count
            ? (stem[..^15], number, count) : null;
    }

    /// <summary>What the library calls a type, or null where it does not compute with it.</summary>
    internal static WeightEncoding? EncodingOf(TensorType type) => Encodings.TryGetValue(type, out WeightEncoding encoding) ? encoding : null;

    /// <summary>The type that holds an encoding as it is, or null.</summary>
    internal static TensorType? TypeOf(WeightEncoding encoding) => Encodings.Where(e => e.Value == encoding).Select(e => (TensorType?)e.Key).FirstOrDefault();

    /// <inheritdoc/>
    public override Tokenizer ReadTokenizer() => Tokenizer.FromGguf(Head);

    /// <inheritdoc/>
    public override string? ReadChatTemplate() => Head.Metadata.GetText("tokenizer.chat_template");

    /// <inheritdoc/>
    public override SamplingParameters? ReadSampling()
    {
        double? Number(string name) => Head.Metadata.GetNumber("general.sampling." + name);
        return Sampling(Head.Path, Number("temp"), Number("top_k"), Number("top_p"), Number("min_p"), Number("penalty_repeat"));
    }

    /// <inheritdoc/>
    public override IEnumerable<(string Key, string Value)> Describe() =>
        Head.Metadata.Entries.Where(e => !e.Key.StartsWith("tokenizer.ggml.", StringComparison.Ordinal)).Select(e => (e.Key, e.Value.ToString()!));

    /// <inheritdoc/>
    public override void Dispose()
    {
        foreach (GgufFile file in _files)
        {
            file.Dispose();
        }
    }

    internal override ModelTensor? Find(string name) => _tensors.TryGetValue(name, out (GgufFile File, GgufTensor Tensor) found) ? Describe(found.File, found.Tensor) : null;

    // Scaling factors belong to the configuration, which has read them. A head of its own beside tied embeddings would be used.
    internal override bool IsNeedless(string tensorName, ModelConfig config) => GgufConfigReader.ReadsTensor(tensorName);

    internal override string CopyPath(string suffix) => Head.Path + suffix;

    private protected override ModelConfig ReadUncheckedConfig() => new GgufConfigReader(this).Read();

    private static ModelTensor Describe(GgufFile file, GgufTensor tensor)
    {
        string field = $"tensor '{tensor.Name}'";
        if (tensor.Dimensions.Length > 2)
        {
            throw new ModelFormatException(file.Path, field, $"is {tensor.Shape}, and a matrix or a vector is expected");
        }

        return new ModelTensor
        {
            Name = tensor.Name,
            Encoding = EncodingOf(tensor.Type) ?? throw new UnsupportedModelException(file.Path, field, $"is stored as {TensorTypes.Name(tensor.Type)}, which is not supported"),
            Rank = tensor.Dimensions.Length,
            Rows = tensor.Rows,
            Columns = tensor.Columns,
            Data = file.Span(tensor),
            Parts = [tensor.Name],
        };
    }

    private void OpenParts(string path, bool memoryMap)
    {
        (string prefix, int number, int named) = PartOf(path) ?? ("", 1, 1);
        string first = number == 1 ? path : PartPath(prefix, 1, named);
        Add(first, memoryMap);
        int count = Head.Metadata.GetInteger("split.count", 0, MostParts) ?? 0;
        if (count <= 1)
        {
            return;
        }

        if (named != count)
        {
            throw new ModelFormatException(first, "split.count", $"is {count:N0}, and the file's name should end in -00001-of-{count:D5}.gguf so that its other parts can be found");
        }

        for (int i = 1; i <= count; i++)
        {
            if (i > 1)
            {
                Add(PartPath(prefix, i, count), memoryMap);
            }

            GgufFile part = _files[^1];
            long? stated = part.Metadata.GetInteger("split.no");
            if (stated != i - 1 || part.Metadata.GetInteger("split.count") != count)
            {
                throw new ModelFormatException(part.Path, "split.no", $"is {stated?.ToString("N0", CultureInfo.InvariantCulture) ?? "missing"}, and part {i:N0} of {count:N0} has {i - 1:N0}");
            }
        }

        if (Head.Metadata.GetInteger("split.tensors.count") is { } tensors && tensors != _tensors.Count)
        {
            throw new ModelFormatException(first, "split.tensors.count", $"is {tensors:N0}, and the {count:N0} files hold {_tensors.Count:N0} tensors");
        }
    }

    private static string PartPath(string prefix, int number, int count) => string.Create(CultureInfo.InvariantCulture, $"{prefix}-{number:D5}-of-{count:D5}.gguf");

    private void Add(string path, bool memoryMap)
    {
        GgufFile file;
        try
        {
            file = GgufFile.Open(path, memoryMap);
        }
        catch (FileNotFoundException e) when (path != Path)
        {
            throw new FileNotFoundException($"'{path}' does not exist; it is a part of the model '{Path}': put all parts into one folder", path, e);
        }

        _files.Add(file);
        foreach (GgufTensor tensor in file.Tensors)
        {
            if (!_tensors.TryAdd(tensor.Name, (file, tensor)))
            {
                throw new ModelFormatException(path, $"tensor '{tensor.Name}'", $"stands in '{_tensors[tensor.Name].File.Path}' too");
            }
        }
    }
}
