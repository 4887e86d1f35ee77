using System.Buffers;
using System.Text;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Text to token ids and back. Safe from any thread.</summary>
public abstract class Tokenizer
{
    private readonly TokenizerData _data;
    private readonly SpecialTokens _userDefined;
    private readonly SpecialTokens _allSpecial;

    private protected Tokenizer(TokenizerData data, bool addsBosByDefault)
    {
        _data = data;
        AddsBos = (data.AddsBos ?? addsBosByDefault) && data.BosId is not null;
        AddsEos = data.AddsEos && data.EosId is not null;
        int[] ids = [.. Enumerable.Range(0, data.Count)];
        _userDefined = new SpecialTokens(data.Texts, ids.Where(id => data.Kinds[id] == TokenKind.UserDefined));
        _allSpecial = new SpecialTokens(data.Texts, ids.Where(id => data.Kinds[id] is TokenKind.UserDefined or TokenKind.Control or TokenKind.Unknown));
    }

    /// <summary>The kind of vocabulary, as <c>tokenizer.ggml.model</c> names it: <c>llama</c> (SentencePiece BPE) or <c>gpt2</c> (byte-level BPE).</summary>
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
            "gpt2" => new BytePairTokenizer(TokenizerData.FromGguf(file)),
            _ => throw new UnsupportedModelException(file.Path, Key, $"'{model}' is not supported; supported are llama (SentencePiece BPE) and gpt2 (byte-level BPE)"),
        };
    }

    /// <summary>Encodes a text.</summary>
    /// <param name="text">The text; lone surrogates are encoded as U+FFFD.</param>
    /// <param name="addSpecial">True to put BOS in front and EOS behind, where the model wants them.</param>
    /// <param name="parseSpecial">True to read the names of control tokens in the text as those tokens: for templates, never for what a user typed.</param>
    public int[] Encode(string text, bool addSpecial = true, bool parseSpecial = false)
    {
        ArgumentNullException.ThrowIfNull(text);
        byte[] rented = ArrayPool<byte>.Shared.Rent(Encoding.UTF8.GetMaxByteCount(text.Length));
        try
        {
            int length = Encoding.UTF8.GetBytes(text, rented);
            List<int> ids = new((length / 3) + 2);
            Encode(rented.AsSpan(0, length), ids, addSpecial, parseSpecial);
            return [.. ids];
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    /// <summary>Encodes UTF-8 text and appends its ids to <paramref name="ids"/>.</summary>
    /// <inheritdoc cref="Encode(string, bool, bool)" path="/param"/>
    /// <param name="utf8">The text.</param>
    /// <param name="ids">Where the ids are appended.</param>
    /// <param name="addSpecial">True to put BOS in front and EOS behind, where the model wants them.</param>
    /// <param name="parseSpecial">True to read the names of control tokens in the text as those tokens.</param>
    public void Encode(ReadOnlySpan<byte> utf8, List<int> ids, bool addSpecial = true, bool parseSpecial = false)
    {
        ArgumentNullException.ThrowIfNull(ids);
        if (addSpecial && AddsBos)
        {
            ids.Add(BosId!.Value);
        }

        SpecialTokens special = parseSpecial ? _allSpecial : _userDefined;
        bool afterSpecial = true;
        int start = 0;
        while (start < utf8.Length)
        {
            int id = special.Find(utf8, start, out int position);
            if (position > start)
            {
                EncodePlain(utf8[start..position], afterSpecial, ids);
                afterSpecial = false;
            }

            if (id < 0)
            {
                break;
            }

            ids.Add(id);
            afterSpecial = true;
            start = position + _data.Texts[id].Length;
        }

        if (addSpecial && AddsEos)
        {
            ids.Add(EosId!.Value);
        }
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
        return Pieces[id];
    }

    /// <summary>What a token is for.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public TokenKind KindOf(int id)
    {
        RequireId(id);
        return _data.Kinds[id];
    }

    /// <summary>True for control and unknown tokens, which are no text.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public bool IsSpecial(int id) => KindOf(id) is TokenKind.Control or TokenKind.Unknown;

    /// <summary>The token's name in the vocabulary file, for people to read.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public string NameOf(int id)
    {
        RequireId(id);
        return Encoding.UTF8.GetString(_data.Texts[id]);
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
        return _data.EndsGeneration[id];
    }

    /// <summary>The bytes of each token.</summary>
    private protected abstract ByteStrings Pieces { get; }

    /// <summary>Encodes text without special tokens in it. <paramref name="afterSpecial"/>: it stands at the start, or after a special token.</summary>
    private protected abstract void EncodePlain(ReadOnlySpan<byte> text, bool afterSpecial, List<int> ids);

    private void RequireId(int id)
    {
        if ((uint)id >= (uint)_data.Count)
        {
            throw new ArgumentOutOfRangeException(nameof(id), $"token {id} is not in the vocabulary of {_data.Count:N0}");
        }
    }
}
