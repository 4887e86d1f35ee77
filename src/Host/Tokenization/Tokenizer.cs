using System.Buffers;
using System.Text;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Text to token ids and back. Safe from any thread.</summary>
public abstract class Tokenizer
{
    private readonly TokenizerData _data;
    private readonly AddedTokens _added;
    private readonly int[] _prefix;
    private readonly int[] _suffix;
    private int _rows; // ids from the vocabulary's end up to here are a model's filling: no text, no meaning

    // inText: tokens that are not looked for here, but by EncodePlain in the normalized text.
    private protected Tokenizer(TokenizerData data, bool addsBosByDefault, HashSet<int>? inText = null)
    {
        (_data, _rows) = (data, data.Count);
        bool bos = (data.AddsBos ?? addsBosByDefault) && data.BosId is not null;
        bool eos = data.AddsEos && data.EosId is not null;
        _prefix = data.Prefix ?? (bos ? [data.BosId!.Value] : []);
        _suffix = data.Suffix ?? (eos ? [data.EosId!.Value] : []);
        AddsBos = data.BosId is int first && _prefix.Contains(first);
        AddsEos = data.EosId is int last && _suffix.Contains(last);
        IEnumerable<int> ids = Enumerable.Range(0, data.Count).Where(id => inText is null || !inText.Contains(id));
        _added = new AddedTokens(data.Texts, ids.Where(id => data.Kinds[id] is TokenKind.UserDefined or TokenKind.Control or TokenKind.Unknown), id => id,
            id => data.Kinds[id] is TokenKind.Control or TokenKind.Unknown, data.AddedOptions);
    }

    /// <summary>What a tokenizer is made from, for those who write it to another file.</summary>
    internal TokenizerData Data => _data;

    /// <summary>The kind of vocabulary, as <c>tokenizer.ggml.model</c> names it, whatever the file: <c>gpt2</c> (byte-level BPE), <c>llama</c> (SentencePiece
    /// BPE), <c>t5</c> (Unigram), <c>bert</c> (WordPiece), <c>gemma4</c> (BPE over SentencePiece's marks); or <c>bpe</c> and <c>wordlevel</c>, which GGUF does not have.</summary>
    public abstract string Model { get; }

    /// <summary>Number of tokens; ids are below it.</summary>
    public int VocabularySize => _data.Count;

    /// <summary>The token that begins a sequence, where there is one.</summary>
    public int? BosId => _data.BosId;

    /// <summary>The token that ends a text, where there is one.</summary>
    public int? EosId => _data.EosId;

    /// <summary>The token that ends a turn of a chat, where the file names one.</summary>
    public int? EotId => _data.EotId;

    /// <summary>The token for what the vocabulary cannot say, where there is one.</summary>
    public int? UnknownId => _data.UnknownId;

    /// <summary>True where <c>addSpecial</c> puts <see cref="BosId"/> in front.</summary>
    public bool AddsBos { get; }

    /// <summary>True where <c>addSpecial</c> puts <see cref="EosId"/> behind.</summary>
    public bool AddsEos { get; }

    /// <summary>True where a text is encoded with a space put before it, which decoding gives back.</summary>
    public virtual bool AddsSpacePrefix => false;

    /// <summary>Makes the tokenizer that a GGUF file's metadata describe.</summary>
    /// <exception cref="ModelFormatException">The vocabulary is missing or inconsistent.</exception>
    /// <exception cref="UnsupportedModelException">The kind of vocabulary or the pre-tokenizer is not known.</exception>
    public static Tokenizer FromGguf(GgufFile file)
    {
        const string Key = "tokenizer.ggml.model";
        string model = file.Metadata.GetText(Key) ?? throw new ModelFormatException(file.Path, Key, "is missing");
        return model switch
        {
            "llama" => new SentencePieceTokenizer(TokenizerData.FromGguf(file)),
            "gpt2" when GgufPipelines.IsCharacterPair(file) => GgufPipelines.CharacterPair(file),
            "gpt2" => new BytePairTokenizer(TokenizerData.FromGguf(file)),
            "gemma4" => GgufPipelines.CharacterPair(file),
            "t5" => GgufPipelines.Unigram(file),
            "bert" => GgufPipelines.WordPiece(file),
            _ => throw new UnsupportedModelException(file.Path, Key, $"'{model}' is not supported; supported are llama (SentencePiece BPE), gpt2 (byte-level BPE), t5 (Unigram), bert (WordPiece) and gemma4"),
        };
    }

    /// <summary>
    /// Makes the tokenizer of a Hugging Face folder: from tokenizer.json, or else vocab.json and merges.txt, SentencePiece's tokenizer.model, or vocab.txt; with what
    /// tokenizer_config.json, special_tokens_map.json, generation_config.json and config.json tell of special tokens.
    /// </summary>
    /// <exception cref="FileNotFoundException">None of these files is there.</exception>
    /// <exception cref="ModelFormatException">A file is malformed or inconsistent.</exception>
    /// <exception cref="UnsupportedModelException">A file names a component that is not supported.</exception>
    public static Tokenizer FromFolder(string folder) => HuggingFaceFolder.Load(folder);

    /// <summary>Encodes a text.</summary>
    /// <param name="text">The text; lone surrogates are encoded as U+FFFD.</param>
    /// <param name="addSpecial">True to put BOS in front and EOS behind, where the model wants them.</param>
    /// <param name="parseSpecial">True to read the names of control tokens in the text as those tokens: for templates, never for what a user typed.</param>
    public int[] Encode(string text, bool addSpecial = true, bool parseSpecial = false)
    {
        ArgumentNullException.ThrowIfNull(text);
        return Encode(text, [], addSpecial, parseSpecial);
    }

    /// <summary>
    /// Encodes a text that a chat template made. Control tokens in it are read as such, but where one touches a message's content:
    /// what a user typed is never a control token. Everything else is encoded as <see cref="Encode(string, bool, bool)"/> does.
    /// </summary>
    /// <param name="text">The text; lone surrogates are encoded as U+FFFD.</param>
    /// <param name="data">Ranges of its characters that are contents, in any order; empty ones count for nothing.</param>
    /// <param name="addSpecial">True to put BOS in front and EOS behind, where the model wants them; templates mostly write them themselves.</param>
    /// <exception cref="ArgumentOutOfRangeException">A range is not within the text.</exception>
    public int[] Encode(string text, ReadOnlySpan<Range> data, bool addSpecial = false)
    {
        ArgumentNullException.ThrowIfNull(text);
        return Encode(text, Utf8Ranges(text, data), addSpecial, parseSpecial: true);
    }

    /// <summary>Encodes UTF-8 text and appends its ids to <paramref name="ids"/>.</summary>
    /// <param name="utf8">The text.</param>
    /// <param name="ids">Where the ids are appended.</param>
    /// <param name="addSpecial">True to put BOS in front and EOS behind, where the model wants them.</param>
    /// <param name="parseSpecial">True to read the names of control tokens in the text as those tokens.</param>
    public void Encode(ReadOnlySpan<byte> utf8, List<int> ids, bool addSpecial = true, bool parseSpecial = false)
    {
        ArgumentNullException.ThrowIfNull(ids);
        Encode(utf8, [], ids, addSpecial, parseSpecial);
    }

    /// <summary>
    /// The text of some tokens: their bytes one after the other, read as UTF-8; broken sequences become U+FFFD. A space that encoding put in front
    /// (<see cref="AddsSpacePrefix"/>) is kept, as ids from the middle of a text begin with a real one.
    /// </summary>
    /// <param name="ids">The tokens.</param>
    /// <param name="skipSpecial">True to leave control and unknown tokens out.</param>
    /// <exception cref="ArgumentOutOfRangeException">An id is not in the vocabulary.</exception>
    public string Decode(ReadOnlySpan<int> ids, bool skipSpecial = true)
    {
        ArrayBufferWriter<byte> bytes = new();
        foreach (int id in ids)
        {
            if (!skipSpecial || !IsSpecial(id))
            {
                bytes.Write(TokenBytes(id));
            }
        }

        return Encoding.UTF8.GetString(bytes.WrittenSpan);
    }

    /// <summary>The bytes that a token adds to a text: part of a character, several characters, or nothing. Control tokens give their name.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public ReadOnlySpan<byte> TokenBytes(int id)
    {
        RequireId(id);
        return id < _data.Count ? Pieces[id] : [];
    }

    /// <summary>What a token is for.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public TokenKind KindOf(int id)
    {
        RequireId(id);
        return id < _data.Count ? _data.Kinds[id] : TokenKind.Unused;
    }

    /// <summary>True for control and unknown tokens, which are no text.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public bool IsSpecial(int id) => KindOf(id) is TokenKind.Control or TokenKind.Unknown;

    /// <summary>The token's name in the vocabulary file, for people to read.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public string NameOf(int id)
    {
        RequireId(id);
        return id < _data.Count ? Encoding.UTF8.GetString(_data.Texts[id]) : "";
    }

    /// <summary>The token of that name in the vocabulary file, or null.</summary>
    public int? Find(string name)
    {
        int id = _data.Index.Find(Encoding.UTF8.GetBytes(name));
        return id < 0 ? null : id;
    }

    /// <summary>True where a token ends an answer: EOS, the end of a turn, and the like.</summary>
    public bool IsEndOfGeneration(int id)
    {
        RequireId(id);
        return id < _data.Count && _data.EndsGeneration[id];
    }

    /// <summary>Tells how many rows a model's embedding has: some have more than there are tokens, and such a row may be drawn.</summary>
    internal Tokenizer WithRows(int rows)
    {
        _rows = Math.Max(rows, _data.Count);
        return this;
    }

    /// <summary>The bytes of each token.</summary>
    private protected abstract ByteStrings Pieces { get; }

    /// <summary>Encodes text without added tokens in it.</summary>
    private protected abstract void EncodePlain(ReadOnlySpan<byte> text, in Segment segment, List<int> ids);

    /// <summary>Where a stretch of plain text stands.</summary>
    /// <param name="AfterSpecial">At the start, or after an added token.</param>
    /// <param name="AtStart">At the start.</param>
    /// <param name="Controls">Control tokens may be read in it, where that is left to <see cref="EncodePlain"/>.</param>
    private protected readonly record struct Segment(bool AfterSpecial, bool AtStart, bool Controls);

    // Ranges of bytes, in order and apart.
    private static (int Start, int End)[] Utf8Ranges(string text, ReadOnlySpan<Range> data)
    {
        List<(int Start, int End)> ranges = [];
        foreach (Range range in data)
        {
            (int offset, int length) = range.GetOffsetAndLength(text.Length);
            if (length > 0)
            {
                ranges.Add((offset, offset + length));
            }
        }

        ranges.Sort();
        List<(int Start, int End)> bytes = [];
        int chars = 0;
        int at = 0;
        foreach ((int start, int end) in ranges)
        {
            if (end <= chars)
            {
                continue;
            }

            int from = Math.Max(start, chars);
            at += Encoding.UTF8.GetByteCount(text.AsSpan(chars, from - chars));
            int length = Encoding.UTF8.GetByteCount(text.AsSpan(from, end - from));
            bytes.Add((at, at + length));
            (chars, at) = (end, at + length);
        }

        return [.. bytes];
    }

    private int[] Encode(string text, ReadOnlySpan<(int Start, int End)> data, bool addSpecial, bool parseSpecial)
    {
        byte[] rented = ArrayPool<byte>.Shared.Rent(Encoding.UTF8.GetMaxByteCount(text.Length));
        try
        {
            int length = Encoding.UTF8.GetBytes(text, rented);
            List<int> ids = new((length / 3) + 2);
            Encode(rented.AsSpan(0, length), data, ids, addSpecial, parseSpecial);
            return [.. ids];
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private void Encode(ReadOnlySpan<byte> utf8, ReadOnlySpan<(int Start, int End)> data, List<int> ids, bool addSpecial, bool parseSpecial)
    {
        if (addSpecial)
        {
            ids.AddRange(_prefix);
        }

        bool afterSpecial = true;
        int start = 0;
        int search = 0;
        while (start < utf8.Length)
        {
            int id = _added.Find(utf8, search, start, parseSpecial, data, out int from, out search, out int stop);
            if (from > start)
            {
                bool controls = parseSpecial && !IsPartOfData(data, start, from);
                EncodePlain(utf8[start..from], new Segment(afterSpecial, start == 0, controls), ids);
                afterSpecial = false;
            }

            if (id < 0)
            {
                break;
            }

            ids.Add(id);
            afterSpecial = true;
            start = stop;
        }

        if (addSpecial)
        {
            ids.AddRange(_suffix);
        }
    }

    private static bool IsPartOfData(ReadOnlySpan<(int Start, int End)> data, int start, int end)
    {
        foreach ((int from, int to) in data)
        {
            if (from < end && to > start)
            {
                return true;
            }
        }

        return false;
    }

    private void RequireId(int id)
    {
        if ((uint)id >= (uint)_rows)
        {
            throw new ArgumentOutOfRangeException(nameof(id), $"token {id} is not in the vocabulary of {_rows:N0}");
        }
    }
}
