namespace Sluice.Models;

/// <summary>The tensors that a configuration implies, found in a model's files and checked: under GGUF's names, fused ones taken apart.</summary>
internal sealed class ModelTensors
{
    private static readonly string[] QkvNames = ["attn_q", "attn_k", "attn_v"];

    private readonly Dictionary<string, ModelTensor> _tensors = new(StringComparer.Ordinal);
    private readonly HashSet<string> _used = new(StringComparer.Ordinal);
    private readonly ModelSource _source;
    private readonly ModelConfig _config;

    private ModelTensors(ModelSource source, ModelConfig config) => (_source, _config) = (source, config);

    /// <summary>Finds and checks them all.</summary>
    /// <exception cref="ModelFormatException">One is missing or of another shape.</exception>
    /// <exception cref="UnsupportedModelException">One is stored in a way that is not supported, or nothing here would use it.</exception>
    public static ModelTensors Check(ModelSource source, ModelConfig config)
    {
        ModelTensors tensors = new(source, config);
        tensors.CheckAll();
        return tensors;
    }

    /// <summary>A tensor that must be there, by GGUF's name for it.</summary>
    public ModelTensor this[string name] => _tensors[name];

    /// <summary>All of them.</summary>
    public IReadOnlyDictionary<string, ModelTensor> All => _tensors;

    /// <summary>Bytes in the files of all of them.</summary>
    public long ByteLength => _tensors.Values.Sum(t => t.ByteLength);

    /// <summary>A tensor that may be there, or null.</summary>
    public ModelTensor? Find(string name) => _tensors.GetValueOrDefault(name);

    private void CheckAll()
    {
        ModelConfig c = _config;
        Matrix("token_embd.weight", c.VocabularySize, c.HiddenSize);
        for (int i = 0; i < c.LayerCount; i++)
        {
            CheckLayer($"blk.{i}.", c);
        }

        Vector("output_norm.weight", c.HiddenSize);
        if (!c.TiedEmbeddings)
        {
            Matrix("output.weight", c.VocabularySize, c.HiddenSize);
        }

        foreach (string name in _source.Tensors.Select(t => t.Name))
        {
            if (!_used.Contains(name) && !_source.IsNeedless(name, c))
            {
                throw new UnsupportedModelException(_source.Path, $"tensor '{name}'", $"has no place in the architecture '{c.Architecture.Name}' of {c.LayerCount:N0} layers; the result would be wrong without it");
            }
        }
    }

    private void CheckLayer(string block, ModelConfig c)
    {
        Architecture family = c.Architecture;
        long queries = (long)c.HeadCount * c.HeadDim, keys = (long)c.KvHeadCount * c.HeadDim, values = (long)c.KvHeadCount * c.ValueHeadDim;
        if (family.Norms != NormPlacement.After)
        {
            Vector(block + "attn_norm.weight", c.HiddenSize);
            Vector(block + "ffn_norm.weight", c.HiddenSize);
        }

        if (family.Norms != NormPlacement.Before)
        {
            Vector(block + "post_attention_norm.weight", c.HiddenSize);
            Vector(block + "post_ffw_norm.weight", c.HiddenSize);
        }

        bool bias = family.RequiresQkvBias || QkvNames.Any(n => _source.Find($"{block}{n}.bias") is not null);
        Linear(block, "attn_q", queries, c.HiddenSize, "attn_qkv", 0, queries + keys + values, bias);
        Linear(block, "attn_k", keys, c.HiddenSize, "attn_qkv", queries, queries + keys + values, bias);
        Linear(block, "attn_v", values, c.HiddenSize, "attn_qkv", queries + keys, queries + keys + values, bias);
        Linear(block, "attn_output", c.HiddenSize, (long)c.HeadCount * c.ValueHeadDim);
        if (family.QkNorm != QkNorm.None)
        {
            bool row = family.QkNorm == QkNorm.Row;
            Vector(block + "attn_q_norm.weight", row ? queries : c.HeadDim);
            Vector(block + "attn_k_norm.weight", row ? keys : c.HeadDim);
        }

        long width = c.FeedForwardSize;
        bool fused = _source.Find(block + "ffn_gate.weight") is null;
        Linear(block, "ffn_gate", width, c.HiddenSize, "ffn_up", 0, 2 * width);
        Linear(block, "ffn_up", width, c.HiddenSize, fused ? "ffn_up" : null, width, 2 * width);
        Linear(block, "ffn_down", c.HiddenSize, width);
    }

    // A matrix and its bias; where the file has several in one, `rows` of `allRows` from `first` on.
    private void Linear(string block, string name, long rows, long columns, string? fused = null, long first = 0, long allRows = 0, bool needsBias = false)
    {
        bool apart = fused is null || (fused != name && _source.Find(block + name + ".weight") is not null);
        if (apart)
        {
            Matrix(block + name + ".weight", rows, columns);
        }
        else
        {
            Matrix(block + fused + ".weight", allRows, columns, block + name + ".weight", first, rows);
        }

        string stored = block + (apart ? name : fused) + ".bias";
        if (needsBias || _source.Find(stored) is not null)
        {
            ModelTensor bias = Checked(stored, 1, 1, apart ? rows : allRows);
            _tensors[block + name + ".bias"] = apart ? bias : bias.Slice(first, rows);
        }
    }

    private void Matrix(string stored, long rows, long columns, string? name = null, long first = 0, long count = 0)
    {
        ModelTensor tensor = Checked(stored, 2, rows, columns);
        if (name is not null && tensor.IsGrouped && (first % 8 != 0 || count % 8 != 0))
        {
            throw new UnsupportedModelException(tensor.File, $"tensor '{tensor.Name}'", $"{count:N0} rows from {first:N0} on are no multiples of 8, and a 4-bit matrix is cut at those");
        }

        _tensors[name ?? stored] = name is null ? tensor : tensor.Slice(first, count);
    }

    private void Vector(string name, long length)
    {
        ModelTensor tensor = Checked(name, 1, 1, length);
        _tensors[name] = tensor;
    }

    private ModelTensor Checked(string name, int rank, long rows, long columns)
    {
        ModelTensor tensor = _source.Find(name) ?? throw new ModelFormatException(_source.Path, $"tensor '{name}'", "is missing");
        foreach (string part in tensor.Parts)
        {
            _used.Add(part);
        }

        string field = $"tensor '{tensor.Name}'";
        if (tensor.Rank != rank || tensor.Rows != rows || tensor.Columns != columns)
        {
            throw new ModelFormatException(tensor.File, field, $"is {tensor.Shape}, and {(rank == 1 ? $"{columns:N0}" : $"{rows:N0} x {columns:N0} (rows x columns)")} is expected");
        }

        return rank == 2 || tensor.IsFloat ? tensor
            : throw new UnsupportedModelException(tensor.File, field, $"is a vector stored as {tensor.Encoding}; F32, F16 and BF16 are supported");
    }
}
