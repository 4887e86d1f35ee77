using System.Text;
using System.Text.Json;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>The files of a Hugging Face folder that tell about its tokenizer; those but the vocabulary may be absent.</summary>
internal sealed class HuggingFaceFolder
{
    private static readonly string[] Gpt2Classes = ["GPT2", "GPTNeoX", "CodeGen", "Roberta", "Bart", "Longformer", "Whisper", "GPTNeo", "Phi", "OPT", "Bloom", "Starcoder"];

    // T5's name is an older one.
    private static readonly string[] SentencePieceNames = ["tokenizer.model", "spiece.model"];

    private readonly string _folder;
    private readonly JsonValue? _config;
    private readonly JsonValue? _special;
    private readonly JsonValue? _generation;
    private readonly JsonValue? _model;

    private HuggingFaceFolder(string folder)
    {
        _folder = folder;
        _config = Optional("tokenizer_config.json");
        _special = Optional("special_tokens_map.json");
        _generation = Optional("generation_config.json");
        _model = Optional("config.json");
    }

    /// <inheritdoc cref="Tokenizer.FromFolder"/>
    public static Tokenizer Load(string folder)
    {
        ArgumentException.ThrowIfNullOrEmpty(folder);
        HuggingFaceFolder files = new(folder);
        string json = Path.Combine(folder, "tokenizer.json");
        if (File.Exists(json))
        {
            return new HuggingFaceReader(json, JsonValue.ReadFile(json), files).Read(null);
        }

        if (File.Exists(Path.Combine(folder, "vocab.json")) && File.Exists(Path.Combine(folder, "merges.txt")))
        {
            return files.FromMerges();
        }

        if (Array.Find(SentencePieceNames, n => File.Exists(Path.Combine(folder, n))) is { } name)
        {
            string path = Path.Combine(folder, name);
            return SentencePieceFolder.Load(path, ReadAll(path), files, files.Optional("added_tokens.json"));
        }

        string words = Path.Combine(folder, "vocab.txt");
        return File.Exists(words) ? files.FromWords(words)
            : throw new FileNotFoundException($"{folder}: there is no tokenizer.json, no vocab.json with merges.txt, no tokenizer.model, and no vocab.txt", json);
    }

    /// <summary>The text of a special token such as bos_token, or null where no file names one.</summary>
    /// <exception cref="ModelFormatException">It is neither a text nor an object with one.</exception>
    public string? TokenText(string key) => Content(_config?.Get(key)) ?? Content(_special?.Get(key));

    /// <summary>True where a file names special tokens by their texts.</summary>
    public bool HasSpecials => _config is not null || _special is not null;

    /// <summary>The value of add_bos_token or the like, or null.</summary>
    public bool? Flag(string key) => _config?.Boolean(key);

    /// <summary>The tokens of tokenizer_config.json's added_tokens_decoder, by id.</summary>
    public IEnumerable<(int Id, JsonValue Token)> AddedTokens()
    {
        if (_config?.Get("added_tokens_decoder") is not { } added)
        {
            yield break;
        }

        foreach ((string key, JsonValue token) in added.Entries())
        {
            yield return int.TryParse(key, System.Globalization.NumberStyles.None, System.Globalization.CultureInfo.InvariantCulture, out int id) && id < TokenizerData.MostTokens
                ? (id, token)
                : throw token.Malformed($"has the key '{key}', and an id from 0 to {TokenizerData.MostTokens - 1:N0} is expected");
        }
    }

    /// <summary>The ids that generation_config.json or config.json gives for bos_token_id or eos_token_id. Those that are no tokens are left out.</summary>
    public List<int> Ids(string key, int count)
    {
        foreach (JsonValue? source in new[] { _generation, _model })
        {
            if (source?.Get(key) is { } value)
            {
                IEnumerable<JsonValue> items = value.Element.ValueKind == JsonValueKind.Array ? value.Items() : [value];
                List<int> ids = [];
                foreach (JsonValue item in items.Take(1_000))
                {
                    // Padded vocabularies have ids that the tokenizer does not know, and -1 means none.
                    long id = item.Integer(-1, int.MaxValue);
                    if (id >= 0 && id < count)
                    {
                        ids.Add((int)id);
                    }
                }

                return ids;
            }
        }

        return [];
    }

    private static string? Content(JsonValue? value) => value is not { } v ? null
        : v.Element.ValueKind == JsonValueKind.Object ? v.Require("content").Text() : v.Text();

    private JsonValue? Optional(string name)
    {
        string path = Path.Combine(_folder, name);
        return File.Exists(path) ? JsonValue.ReadFile(path) : null;
    }

    private PipelineTokenizer FromMerges()
    {
        string vocabulary = Path.Combine(_folder, "vocab.json");
        string name = _config?.Text("tokenizer_class") ?? "GPT2Tokenizer";
        string family = name.EndsWith("Fast", StringComparison.Ordinal) ? name[..^4] : name;
        family = family.EndsWith("Tokenizer", StringComparison.Ordinal) ? family[..^9] : family;
        bool qwen = family.StartsWith("Qwen", StringComparison.Ordinal);
        if (!qwen && !Gpt2Classes.Contains(family))
        {
            throw _config!.Value.Get("tokenizer_class")!.Value.Unsupported($"is '{name}', and without a tokenizer.json only Qwen2Tokenizer, {string.Join("Tokenizer, ", Gpt2Classes)}Tokenizer are known");
        }

        string prefix = _config?.Boolean("add_prefix_space") ?? false ? "true" : "false";
        string pipeline = qwen
            ? $$$"""{"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"{{{JsonEncodedText.Encode(RegexTexts.Qwen2)}}}"},"behavior":"Isolated"},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]},"decoder":{"type":"ByteLevel"}}"""
            : $$$"""{"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":{{{prefix}}}},"decoder":{"type":"ByteLevel"}}""";
        HuggingFaceReader reader = new(vocabulary, JsonValue.Parse(vocabulary, "", Encoding.UTF8.GetBytes(pipeline)), this);
        string merges = Path.Combine(_folder, "merges.txt");
        return reader.Read((JsonValue.ReadFile(vocabulary), ReadAll(merges), merges));
    }

    private PipelineTokenizer FromWords(string path)
    {
        string lower = _config?.Boolean("do_lower_case") ?? true ? "true" : "false";
        string strip = _config?.Boolean("strip_accents") is bool s ? s ? "true" : "false" : "null";
        string pipeline = $$$"""{"normalizer":{"type":"BertNormalizer","lowercase":{{{lower}}},"strip_accents":{{{strip}}}},"pre_tokenizer":{"type":"BertPreTokenizer"},"decoder":{"type":"WordPiece"}}""";
        return new HuggingFaceReader(path, JsonValue.Parse(path, "", Encoding.UTF8.GetBytes(pipeline)), this).ReadWords(ReadAll(path));
    }

    private static byte[] ReadAll(string path)
    {
        using FileSource source = FileSource.Open(path, memoryMap: false);
        if (source.Length > 1 << 28)
        {
            throw new ModelFormatException(path, "", $"is {source.Length:N0} bytes, and at most {1 << 28:N0} are read");
        }

        byte[] bytes = new byte[source.Length];
        source.Read(0, bytes);
        return bytes.AsSpan().StartsWith("\uFEFF"u8) ? bytes[3..] : bytes;
    }
}
