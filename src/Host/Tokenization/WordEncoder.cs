using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>Turns one piece of normalized text into ids. Holds its own buffers: one thread at a time.</summary>
internal abstract class WordEncoder
{
    private const int LongestCached = 32;

    private readonly WordCache _cache = new();

    /// <summary>Appends the ids of a piece that is not empty.</summary>
    public void Encode(ReadOnlySpan<byte> word, List<int> ids)
    {
        if (word.Length > LongestCached)
        {
            EncodeNew(word, ids);
            return;
        }

        uint hash = ByteStringIndex.Hash(word);
        if (_cache.TryGet(hash, word, out ReadOnlySpan<int> known))
        {
            ids.AddRange(known);
            return;
        }

        int before = ids.Count;
        EncodeNew(word, ids);
        if (ids.Count - before <= short.MaxValue)
        {
            _cache.Add(hash, word, CollectionsMarshal.AsSpan(ids)[before..]);
        }
    }

    protected abstract void EncodeNew(ReadOnlySpan<byte> word, List<int> ids);
}

/// <summary>A whole word is a token or unknown.</summary>
internal sealed class WordLevelEncoder(ByteStringIndex index, int unknown) : WordEncoder
{
    protected override void EncodeNew(ReadOnlySpan<byte> word, List<int> ids)
    {
        int id = index.Find(word);
        id = id < 0 ? unknown : id;
        if (id >= 0)
        {
            ids.Add(id);
        }
    }
}

/// <summary>How <see cref="WordPieceEncoder"/> marks pieces.</summary>
/// <param name="Index">The vocabulary.</param>
/// <param name="First">Stands before a word's first piece in the vocabulary (GGUF writes U+2581 there).</param>
/// <param name="Continuing">Stands before the others in the vocabulary, "##" mostly.</param>
/// <param name="Unknown">The token for a word that cannot be spelt, or -1.</param>
/// <param name="MostCharacters">A longer word is unknown.</param>
internal sealed record WordPieceOptions(ByteStringIndex Index, byte[] First, byte[] Continuing, int Unknown, int MostCharacters);

/// <summary>WordPiece (Schuster and Nakajima, 2012; as in BERT): the longest piece that a word begins with, again and again.</summary>
internal sealed class WordPieceEncoder(WordPieceOptions options) : WordEncoder
{
    private byte[] _piece = [];

    protected override void EncodeNew(ReadOnlySpan<byte> word, List<int> ids)
    {
        int before = ids.Count;
        if (options.MostCharacters == int.MaxValue || System.Text.Encoding.UTF8.GetCharCount(word) <= options.MostCharacters || CountPoints(word) <= options.MostCharacters)
        {
            ReadOnlySpan<byte> mark = options.First;
            for (int at = 0; ; mark = options.Continuing)
            {
                if (at == word.Length)
                {
                    return;
                }

                int taken = Longest(word[at..], mark, out int id);
                if (taken == 0)
                {
                    break;
                }

                ids.Add(id);
                at += taken;
            }

            CollectionsMarshal.SetCount(ids, before);
        }

        if (options.Unknown >= 0)
        {
            ids.Add(options.Unknown);
        }
    }

    private static int CountPoints(ReadOnlySpan<byte> word)
    {
        int count = 0;
        foreach (byte value in word)
        {
            count += (value & 0xC0) != 0x80 ? 1 : 0;
        }

        return count;
    }

    private int Longest(ReadOnlySpan<byte> rest, ReadOnlySpan<byte> mark, out int id)
    {
        int most = Math.Min(rest.Length, options.Index.Longest - mark.Length);
        if (_piece.Length < options.Index.Longest + mark.Length)
        {
            _piece = new byte[options.Index.Longest + mark.Length];
        }

        mark.CopyTo(_piece);
        if (most > 0)
        {
            rest[..most].CopyTo(_piece.AsSpan(mark.Length));
        }

        for (int length = most; length > 0; length--)
        {
            if (length < rest.Length && (rest[length] & 0xC0) == 0x80)
            {
                continue;
            }

            id = options.Index.Find(_piece.AsSpan(0, mark.Length + length));
            if (id >= 0)
            {
                return length;
            }
        }

        id = -1;
        return 0;
    }
}
