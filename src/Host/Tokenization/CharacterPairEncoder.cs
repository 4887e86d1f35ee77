namespace Sluice.Tokenization;

/// <summary>What BPE over characters needs of a vocabulary; the options are Hugging Face's.</summary>
internal sealed class CharacterPairVocabulary
{
    private readonly int[] _ascii = new int[128];

    public CharacterPairVocabulary(ByteStringIndex index, MergeTable merges)
    {
        (Index, Merges) = (index, merges);
        for (int i = 0; i < _ascii.Length; i++)
        {
            _ascii[i] = index.Find([(byte)i]);
        }
    }

    public ByteStringIndex Index { get; }

    public MergeTable Merges { get; }

    /// <summary>The token for characters that have none, or -1.</summary>
    public int Unknown { get; init; } = -1;

    /// <summary>True to make a run of unknown characters one token.</summary>
    public bool FuseUnknown { get; init; }

    /// <summary>The token of each byte (or -1) where a character without a token is spelt in bytes, or null.</summary>
    public int[]? ByteTokens { get; init; }

    /// <summary>True where a piece that is a token is that token.</summary>
    public bool IgnoresMerges { get; init; }

    /// <summary>True where only a run of line feeds is taken whole if it is a token.</summary>
    public bool WholeLineFeeds { get; init; }

    /// <summary>Stands before every character of a word but the first.</summary>
    public byte[] ContinuingPrefix { get; init; } = [];

    /// <summary>Stands behind the last character of a word.</summary>
    public byte[] WordSuffix { get; init; } = [];

    /// <summary>True where no merge goes over a space mark that follows something else, so that words can be encoded one by one.</summary>
    public bool WordsAreApart { get; init; }

    /// <summary>The token of a character, or -1.</summary>
    public int Find(ReadOnlySpan<byte> character) => character.Length == 1 && character[0] < 128 ? _ascii[character[0]] : Index.Find(character);
}

/// <summary>BPE over characters (Sennrich et al., 2016): characters are symbols at first, and pairs merge in the order of the list.</summary>
internal sealed class CharacterPairEncoder(CharacterPairVocabulary vocabulary) : WordEncoder
{
    private readonly LongWordMerger _merger = new(vocabulary.Merges);
    private readonly List<byte> _marked = [];
    private CharacterPairEncoder? _words;

    // Words of a piece that is cut at its marks are no longer looked up whole.
    private bool _isPart;

    protected override void EncodeNew(ReadOnlySpan<byte> word, List<int> ids)
    {
        if (!_isPart && (vocabulary.IgnoresMerges || (vocabulary.WholeLineFeeds && word.IndexOfAnyExcept((byte)'\n') < 0)))
        {
            int whole = vocabulary.Index.Find(word);
            if (whole >= 0)
            {
                ids.Add(whole);
                return;
            }
        }

        if (vocabulary.WordsAreApart && !_isPart && SentencePieceTokenizer.EndOfWord(word) < word.Length)
        {
            _words ??= new CharacterPairEncoder(vocabulary) { _isPart = true };
            while (!word.IsEmpty)
            {
                int end = SentencePieceTokenizer.EndOfWord(word);
                _words.Encode(word[..end], ids);
                word = word[end..];
            }

            return;
        }

        // A character gives at most as many symbols as it has bytes, and an unknown one more at the end.
        Span<int> symbols = _merger.Begin(word.Length + 1);
        int count = 0;
        int unknown = 0;
        for (int at = 0; at < word.Length;)
        {
            CharClass.CodePointAt(word, at, out int length);
            bool first = at == 0;
            at += length;
            ReadOnlySpan<byte> character = Marked(word.Slice(at - length, length), first, at == word.Length);
            int id = vocabulary.Find(character);
            if (id >= 0)
            {
                Flush(symbols, ref count, ref unknown);
                symbols[count++] = id;
            }
            else if (!Spell(character, symbols, ref count) && vocabulary.Unknown >= 0)
            {
                if (!vocabulary.FuseUnknown)
                {
                    Flush(symbols, ref count, ref unknown);
                }

                unknown = 1;
            }
        }

        Flush(symbols, ref count, ref unknown);
        if (count <= ShortWordMerger.MostSymbols)
        {
            ShortWordMerger.Merge(vocabulary.Merges, symbols, count, ids);
        }
        else
        {
            _merger.Merge(count, ids);
        }
    }

    private ReadOnlySpan<byte> Marked(ReadOnlySpan<byte> character, bool first, bool last)
    {
        bool prefixed = !first && vocabulary.ContinuingPrefix.Length > 0;
        bool suffixed = last && vocabulary.WordSuffix.Length > 0;
        if (!prefixed && !suffixed)
        {
            return character;
        }

        _marked.Clear();
        if (prefixed)
        {
            _marked.AddRange(vocabulary.ContinuingPrefix);
        }

        _marked.AddRange(character);
        if (suffixed)
        {
            _marked.AddRange(vocabulary.WordSuffix);
        }

        return System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_marked);
    }

    // All bytes, or nothing. The marks of a word's parts are spelt too, and so may not fit: then it is unknown.
    private bool Spell(ReadOnlySpan<byte> character, Span<int> symbols, ref int count)
    {
        if (vocabulary.ByteTokens is not { } bytes || count + character.Length >= symbols.Length)
        {
            return false;
        }

        int start = count;
        foreach (byte value in character)
        {
            if (bytes[value] < 0)
            {
                count = start;
                return false;
            }

            symbols[count++] = bytes[value];
        }

        return true;
    }

    private void Flush(Span<int> symbols, ref int count, ref int unknown)
    {
        if (unknown > 0)
        {
            symbols[count++] = vocabulary.Unknown;
            unknown = 0;
        }
    }
}
