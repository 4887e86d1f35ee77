using System.Text;
using System.Text.Json;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Collects the tokens of a Hugging Face tokenizer: those of its model, then those that were added.</summary>
internal sealed class HuggingFaceVocabulary(string file)
{
    // Real vocabularies have holes, but few; a hostile one must not cost memory that its bytes do not pay for.
    private const int MostHoles = 100_000;

    private readonly List<(int Id, byte[] Text)> _tokens = [];
    private readonly Dictionary<int, (JsonValue Source, string Text, bool Special, bool Normalized, AddedTokenOptions Options)> _added = [];
    private readonly Dictionary<string, int> _byText = new(StringComparer.Ordinal);
    private byte[]?[] _texts = [];

    /// <summary>SentencePiece's scores by id, or null.</summary>
    public List<double>? Scores { get; private set; }

    public ByteStrings Texts { get; private set; } = new ByteStrings.Builder(0).Build();

    public ByteStringIndex Index { get; private set; } = new(new ByteStrings.Builder(0).Build());

    public TokenKind[] Kinds { get; private set; } = [];

    public AddedTokenOptions[]? Options { get; private set; }

    /// <summary>Added tokens that are looked for in the normalized text.</summary>
    public List<int> Normalized { get; } = [];

    /// <summary>Reads an object of texts and ids.</summary>
    /// <exception cref="ModelFormatException">It is malformed, or too large.</exception>
    public void ReadObject(JsonValue vocabulary)
    {
        CheckCount(vocabulary, vocabulary.Element.ValueKind == JsonValueKind.Object ? vocabulary.Element.GetPropertyCount() : 0);
        foreach ((string text, JsonValue id) in vocabulary.Entries())
        {
            _tokens.Add(((int)id.Integer(0, TokenizerData.MostTokens - 1), Encoding.UTF8.GetBytes(text)));
        }
    }

    /// <summary>Reads an array of pairs of text and score.</summary>
    /// <exception cref="ModelFormatException">It is malformed, or too large.</exception>
    public void ReadScored(JsonValue vocabulary)
    {
        CheckCount(vocabulary, vocabulary.Element.ValueKind == JsonValueKind.Array ? vocabulary.Element.GetArrayLength() : 0);
        Scores = [];
        foreach (JsonValue pair in vocabulary.Items())
        {
            if (pair.Element.ValueKind != JsonValueKind.Array || pair.Element.GetArrayLength() != 2)
            {
                throw pair.Malformed("is no pair of text and score");
            }

            JsonValue[] parts = [.. pair.Items()];
            _tokens.Add((_tokens.Count, Encoding.UTF8.GetBytes(parts[0].Text())));
            Scores.Add(parts[1].Number());
        }
    }

    /// <summary>Adds a token of the model.</summary>
    public void Add(int id, byte[] text) => _tokens.Add((id, text));

    /// <summary>Reads an added token.</summary>
    /// <exception cref="ModelFormatException">It is malformed.</exception>
    public void ReadAdded(JsonValue token, int id)
    {
        string text = token.Require("content").Text();
        if (text.Length == 0 || _added.ContainsKey(id))
        {
            return;
        }

        bool special = token.Boolean("special") ?? false;
        AddedTokenOptions options = (token.Boolean("lstrip") ?? false ? AddedTokenOptions.StripLeft : 0)
            | (token.Boolean("rstrip") ?? false ? AddedTokenOptions.StripRight : 0)
            | (token.Boolean("single_word") ?? false ? AddedTokenOptions.SingleWord : 0);
        _added.Add(id, (token, text, special, token.Boolean("normalized") ?? !special, options));
    }

    /// <summary>Puts everything in its place.</summary>
    /// <param name="where">The vocabulary's field, for errors.</param>
    /// <exception cref="ModelFormatException">Two tokens have one id, or ids are too far apart.</exception>
    public void Build(JsonValue where)
    {
        int most = -1;
        foreach ((int id, _) in _tokens)
        {
            most = Math.Max(most, id);
        }

        foreach (int id in _added.Keys)
        {
            most = Math.Max(most, id);
        }

        int known = _tokens.Count + _added.Count;
        if (known == 0)
        {
            throw where.Malformed("has no tokens");
        }

        if (most >= known + MostHoles)
        {
            throw where.Malformed($"has {known:N0} tokens with ids up to {most:N0}, and at most {MostHoles:N0} may be left out");
        }

        _texts = new byte[]?[most + 1];
        Kinds = new TokenKind[most + 1];
        Array.Fill(Kinds, TokenKind.Unused);
        foreach ((int id, byte[] text) in _tokens)
        {
            if (_texts[id] is { } other)
            {
                throw where.Malformed($"gives id {id:N0} to {TokenizerData.Show(other)} and {TokenizerData.Show(text)}");
            }

            _texts[id] = text;
            Kinds[id] = TokenKind.Normal;
            _byText[Encoding.UTF8.GetString(text)] = id;
        }

        PlaceAdded();
        ByteStrings.Builder builder = new(_texts.Length);
        foreach (byte[]? text in _texts)
        {
            builder.Add(text);
        }

        Texts = builder.Build();
        Index = new ByteStringIndex(Texts);
        // Of equal texts the last counts, as in a dictionary that is written to.
        for (int id = _texts.Length - 1; id >= 0; id--)
        {
            if (_texts[id] is not null)
            {
                Index.TryAdd(id);
            }
        }

        _texts = [];
        _tokens.Clear();
        _byText.Clear();
    }

    private void PlaceAdded()
    {
        foreach ((int given, (JsonValue source, string text, bool special, bool normalized, AddedTokenOptions options)) in _added.OrderBy(a => a.Key))
        {
            // A text that the model knows keeps its id there, whatever the list says.
            int id = _byText.GetValueOrDefault(text, given);
            byte[] bytes = Encoding.UTF8.GetBytes(text);
            if (_texts[id] is { } other && !other.AsSpan().SequenceEqual(bytes))
            {
                throw source.Malformed($"gives id {id:N0} to {TokenizerData.Show(bytes)}, which {TokenizerData.Show(other)} has");
            }

            _byText[text] = id;
            _texts[id] = bytes;
            Kinds[id] = special ? TokenKind.Control : TokenKind.UserDefined;
            if (options != 0)
            {
                Options ??= new AddedTokenOptions[_texts.Length];
                Options[id] = options;
            }

            if (normalized)
            {
                Normalized.Add(id);
            }
        }
    }

    private void CheckCount(JsonValue vocabulary, int count)
    {
        if (count > TokenizerData.MostTokens)
        {
            throw new ModelFormatException(file, vocabulary.Field, $"has {count:N0} tokens, and at most {TokenizerData.MostTokens:N0} are allowed");
        }
    }
}
