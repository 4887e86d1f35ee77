using Sluice.Interop;
using Sluice.Loading;
using Sluice.Tokenization;

namespace Sluice.Models;

/// <summary>
/// A model in a folder as Hugging Face's libraries write it: config.json, safetensors (one file, or shards and their index),
/// tokenizer files, chat template. Matrices are F32, F16, BF16, or 4-bit as GPTQ or AWQ pack them.
/// </summary>
public sealed class HuggingFaceModel : ModelSource
{
    private const string IndexName = "model.safetensors.index.json";

    // What parts of a model for pictures stand under; Sluice runs its language model.
    private static readonly string[] OtherParts = ["vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector."];
    private static readonly string[] LanguagePrefixes = ["", "language_model.", "model.language_model."];

    private readonly List<SafetensorsFile> _files = [];
    private readonly Dictionary<string, (SafetensorsFile File, SafetensorsTensor Tensor)> _tensors = new(StringComparer.Ordinal);
    private readonly HuggingFaceConfigReader _config;
    private readonly PackedWeights? _packed;
    private string _prefix = "";

    private HuggingFaceModel(string folder)
        : base(folder)
    {
        _config = new HuggingFaceConfigReader(folder);
        _packed = PackedWeights.Read(folder, _config.Top);
    }

    /// <summary>The safetensors files.</summary>
    public IReadOnlyList<SafetensorsFile> Files => _files;

    /// <inheritdoc/>
    public override string Format => $"Hugging Face folder, {(_files.Count == 1 ? "one file" : $"{_files.Count} files")}{(_packed is null ? "" : $", {_packed}")}";

    /// <inheritdoc/>
    public override long Length => _files.Sum(f => f.Length);

    /// <inheritdoc/>
    public override IReadOnlyList<TensorInfo> Tensors => [.. _tensors.Values.Select(t => new TensorInfo(t.Tensor.Name, t.Tensor.DType, t.Tensor.Shape, t.Tensor.ByteLength))];

    /// <inheritdoc/>
    public override Tokenizer ReadTokenizer() => Tokenizer.FromFolder(Path);

    /// <inheritdoc/>
    public override string? ReadChatTemplate()
    {
        string own = System.IO.Path.Combine(Path, "chat_template.jinja");
        if (File.Exists(own))
        {
            return TextFile.Read(own);
        }

        string json = System.IO.Path.Combine(Path, "chat_template.json");
        if (File.Exists(json) && JsonValue.ReadFile(json).Get("chat_template") is { } inFile)
        {
            return inFile.Text();
        }

        string config = System.IO.Path.Combine(Path, "tokenizer_config.json");
        if (!File.Exists(config) || JsonValue.ReadFile(config).Get("chat_template") is not { } template)
        {
            return null;
        }

        if (template.Element.ValueKind == System.Text.Json.JsonValueKind.String)
        {
            return template.Text();
        }

        // Several by name: the one for plain chats.
        JsonValue[] named = [.. template.Items()];
        JsonValue? chosen = named.Cast<JsonValue?>().FirstOrDefault(t => t!.Value.Require("name").Text() == "default");
        return (chosen ?? throw template.Malformed("holds no template named 'default'")).Require("template").Text();
    }

    /// <inheritdoc/>
    public override SamplingParameters? ReadSampling()
    {
        string path = System.IO.Path.Combine(Path, "generation_config.json");
        if (!File.Exists(path))
        {
            return null;
        }

        // Without do_sample the others are not in force.
        JsonValue json = JsonValue.ReadFile(path);
        return json.Boolean("do_sample") != true ? null
            : Sampling(path, json.Number("temperature"), json.Integer("top_k", 0, int.MaxValue), json.Number("top_p"), json.Number("min_p"), json.Number("repetition_penalty")) ?? new SamplingParameters { Temperature = 1 };
    }

    /// <inheritdoc/>
    public override IEnumerable<(string Key, string Value)> Describe() => _config.Describe();

    /// <inheritdoc/>
    public override void Dispose()
    {
        foreach (SafetensorsFile file in _files)
        {
            file.Dispose();
        }
    }

    /// <summary>Opens a folder; one that holds nothing but a GGUF model is opened as that.</summary>
    internal static ModelSource OpenFolder(string folder, bool memoryMap)
    {
        // Folders of GGUF files often keep the config.json of what they were made from.
        bool plain = File.Exists(System.IO.Path.Combine(folder, "config.json"));
        string[] found = [.. Directory.EnumerateFiles(folder, "*.gguf").Where(f => GgufModel.PartOf(f) is not { Number: > 1 }).Order(StringComparer.Ordinal)];
        if (!plain || (found.Length > 0 && !Directory.EnumerateFiles(folder, "*.safetensors").Any()))
        {
            return found.Length == 1 ? GgufModel.Open(found[0], memoryMap)
                : throw new ModelFormatException(folder, "", found.Length == 0 ? "holds neither a config.json nor a .gguf file" : $"holds {found.Length:N0} GGUF models: name one of them");
        }

        HuggingFaceModel model = new(folder);
        try
        {
            model.OpenFiles(memoryMap);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    internal override ModelTensor? Find(string name)
    {
        foreach (string own in HuggingFaceNames.Of(name, _config.Architecture))
        {
            string stored = own.StartsWith("model.", StringComparison.Ordinal) && _prefix == "model.language_model."
                ? _prefix + own["model.".Length..]
                : own == "lm_head.weight" && _prefix == "model.language_model." ? own : _prefix + own;
            if (_tensors.TryGetValue(stored, out (SafetensorsFile File, SafetensorsTensor Tensor) plain))
            {
                return Plain(plain.File, plain.Tensor, name);
            }

            if (_packed?.Find(stored, p => _tensors.TryGetValue(p, out (SafetensorsFile File, SafetensorsTensor Tensor) t) ? t : null) is { } packed)
            {
                return packed;
            }
        }

        return null;
    }

    internal override bool IsNeedless(string tensorName, ModelConfig config) =>
        tensorName.EndsWith(".rotary_emb.inv_freq", StringComparison.Ordinal)
        || (config.TiedEmbeddings && tensorName == "lm_head.weight")
        || (config.TiedEmbeddings && tensorName == _prefix + "lm_head.weight")
        || (_prefix.Length > 0 && OtherParts.Any(p => tensorName.StartsWith(p, StringComparison.Ordinal)));

    internal override string CopyPath(string suffix) => System.IO.Path.Combine(Path, "model" + suffix);

    private protected override ModelConfig ReadUncheckedConfig() => _config.Read(
        Find("token_embd.weight") ?? throw new ModelFormatException(Path, "tensor 'model.embed_tokens.weight'", "is missing"),
        Find("output.weight") is not null);

    private ModelTensor Plain(SafetensorsFile file, SafetensorsTensor tensor, string name)
    {
        string field = $"tensor '{tensor.Name}'";
        if (tensor.Shape.Length is 0 or > 2)
        {
            throw new ModelFormatException(file.Path, field, $"is {tensor.ShapeText}, and a matrix or a vector is expected");
        }

        bool isNorm = name.EndsWith("norm.weight", StringComparison.Ordinal);
        return new ModelTensor
        {
            Name = tensor.Name,
            Encoding = tensor.DType switch
            {
                "F32" => WeightEncoding.F32,
                "F16" => WeightEncoding.F16,
                "BF16" => WeightEncoding.BF16,
                _ => throw new UnsupportedModelException(file.Path, field, $"is stored as {tensor.DType}; F32, F16, BF16 and 4-bit GPTQ and AWQ are supported"),
            },
            Rank = tensor.Shape.Length,
            Rows = tensor.Shape.Length == 1 ? 1 : tensor.Shape[0],
            Columns = tensor.Shape[^1],
            Data = file.Span(tensor),
            Parts = [tensor.Name],
            Plus = isNorm && _config.Architecture.NormsLessOne ? 1f : 0f,
        };
    }

    private void OpenFiles(bool memoryMap)
    {
        string index = System.IO.Path.Combine(Path, IndexName);
        string single = System.IO.Path.Combine(Path, "model.safetensors");
        if (File.Exists(index))
        {
            OpenShards(JsonValue.ReadFile(index), memoryMap);
        }
        else
        {
            // Packers have names of their own for a single file.
            string[] found = File.Exists(single) ? [single] : [.. Directory.EnumerateFiles(Path, "*.safetensors").Order(StringComparer.Ordinal)];
            if (found.Length != 1)
            {
                bool pickled = Directory.EnumerateFiles(Path, "*.bin").Any() || Directory.EnumerateFiles(Path, "*.pt*").Any();
                throw found.Length > 1
                    ? new ModelFormatException(Path, "", $"holds {found.Length:N0} .safetensors files and no {IndexName} that tells which tensor is where")
                    : pickled ? new UnsupportedModelException(Path, "", "holds pickled PyTorch weights, which can run code when they are read: save the model as safetensors")
                    : new ModelFormatException(Path, "", "holds no .safetensors file");
            }

            SafetensorsFile file = SafetensorsFile.Open(found[0], memoryMap);
            _files.Add(file);
            foreach (SafetensorsTensor tensor in file.Tensors)
            {
                _tensors.Add(tensor.Name, (file, tensor));
            }
        }

        _prefix = LanguagePrefixes.FirstOrDefault(p => _tensors.ContainsKey(p == "model.language_model." ? p + "embed_tokens.weight" : p + "model.embed_tokens.weight")) ?? "";
    }

    private void OpenShards(JsonValue index, bool memoryMap)
    {
        Dictionary<string, SafetensorsFile> byName = new(StringComparer.Ordinal);
        foreach ((string name, JsonValue place) in index.Require("weight_map").Entries())
        {
            string shard = place.Text();
            if (shard.Length is 0 or > 255 || shard.AsSpan().ContainsAny('/', '\\', '\0') || shard is "." or ".." || System.IO.Path.IsPathRooted(shard))
            {
                throw place.Malformed($"is '{(shard.Length > 60 ? shard[..60] : shard)}', and the name of a file in the same folder is expected");
            }

            if (!byName.TryGetValue(shard, out SafetensorsFile? file))
            {
                string path = System.IO.Path.Combine(Path, shard);
                if (!File.Exists(path))
                {
                    throw place.Malformed($"names the file '{shard}', which is not in the folder: is the download complete?");
                }

                file = SafetensorsFile.Open(path, memoryMap);
                _files.Add(file);
                byName.Add(shard, file);
            }

            _tensors.Add(name, file.TryGetTensor(name, out SafetensorsTensor? tensor) ? (file, tensor)
                : throw place.Malformed($"names the file '{shard}', which has no tensor of that name"));
        }

        if (_tensors.Count == 0)
        {
            throw index.Require("weight_map").Malformed("is empty");
        }
    }
}
