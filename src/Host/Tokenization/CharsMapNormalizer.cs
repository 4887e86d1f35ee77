using System.Buffers.Binary;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace Sluice.Tokenization;

/// <summary>
/// SentencePiece's precompiled character map: a double-array trie (Darts) of texts, and what each becomes. Reads are checked, as the
/// map comes from a file.
/// </summary>
internal sealed class CharsMap
{
    private readonly uint[] _units;
    private readonly byte[] _texts;

    /// <summary>Reads a map: the trie's size in bytes, its units, texts that end with a zero.</summary>
    /// <exception cref="FormatException">It is cut short.</exception>
    public CharsMap(ReadOnlySpan<byte> map)
    {
        if (map.Length < 4)
        {
            throw new FormatException($"has {map.Length:N0} bytes, and at least 4 are needed");
        }

        uint size = BinaryPrimitives.ReadUInt32LittleEndian(map);
        if (size % 4 != 0 || size > map.Length - 4)
        {
            throw new FormatException($"says that its trie is of {size:N0} bytes, and {map.Length - 4:N0} are left");
        }

        _units = MemoryMarshal.Cast<byte, uint>(map.Slice(4, (int)size)).ToArray();
        _texts = map[(4 + (int)size)..].ToArray();
    }

    /// <summary>The bytes of the longest (or shortest) entry that <paramref name="text"/> begins with, and what it becomes; 0 where there is none.</summary>
    public int Find(ReadOnlySpan<byte> text, bool longest, out ReadOnlySpan<byte> replacement)
    {
        replacement = default;
        int found = 0;
        uint value = 0;
        uint node = 0;
        if (_units.Length == 0)
        {
            return 0;
        }

        node ^= Offset(_units[0]);
        for (int i = 0; i < text.Length && text[i] != 0; i++)
        {
            node ^= text[i];
            if (node >= _units.Length || (_units[node] & (1U << 31 | 0xFF)) != text[i])
            {
                break;
            }

            uint unit = _units[node];
            node ^= Offset(unit);
            if ((unit >> 8 & 1) != 0)
            {
                if (node >= _units.Length)
                {
                    break;
                }

                found = i + 1;
                value = _units[node] & ~(1U << 31);
                if (!longest)
                {
                    break;
                }
            }
        }

        if (found == 0 || value >= _texts.Length)
        {
            return 0;
        }

        ReadOnlySpan<byte> from = _texts.AsSpan((int)value);
        int end = from.IndexOf((byte)0);
        replacement = end < 0 ? from : from[..end];
        return found;
    }

    private static uint Offset(uint unit) => (unit >> 10) << (int)((unit & 1U << 9) >> 6);
}

/// <summary>
/// A character map as Hugging Face's library applies it: a grapheme cluster of fewer than six bytes whole where an entry begins it
/// (the shortest one), else each of its code points.
/// </summary>
internal sealed class PrecompiledNormalizer(CharsMap map) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        string chars = Encoding.UTF8.GetString(text);
        Span<byte> cluster = stackalloc byte[1024];
        for (int at = 0; at < chars.Length;)
        {
            int length = char.IsAscii(chars[at]) && chars[at] != '\r' && (at + 1 == chars.Length || char.IsAscii(chars[at + 1]))
                ? 1
                : StringInfo.GetNextTextElementLength(chars.AsSpan(at));
            ReadOnlySpan<char> element = chars.AsSpan(at, length);
            at += length;
            if (length < 6 && Encoding.UTF8.GetByteCount(element) < 6)
            {
                int bytes = Encoding.UTF8.GetBytes(element, cluster);
                if (map.Find(cluster[..bytes], longest: false, out ReadOnlySpan<byte> whole) > 0)
                {
                    output.Add(whole);
                    continue;
                }
            }

            foreach (Rune rune in element.EnumerateRunes())
            {
                int bytes = rune.EncodeToUtf8(cluster);
                output.Add(map.Find(cluster[..bytes], longest: false, out ReadOnlySpan<byte> one) > 0 ? one : cluster[..bytes]);
            }
        }

        return true;
    }
}

/// <summary>A character map as SentencePiece applies it: the longest entry at each place; then blanks as marks, put in front and merged where asked.</summary>
internal sealed class SentencePieceNormalizer(CharsMap? map, bool spaceInFront, bool mergeSpaces) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        bool put = false;
        bool inWord = false;
        for (int at = 0; at < text.Length;)
        {
            ReadOnlySpan<byte> piece = default;
            int taken = map?.Find(text[at..], longest: true, out piece) ?? 0;
            if (taken == 0)
            {
                bool whole = Rune.DecodeFromUtf8(text[at..], out _, out taken) == System.Buffers.OperationStatus.Done;
                taken = whole ? taken : 1;
                piece = whole ? text.Slice(at, taken) : "\uFFFD"u8;
            }

            at += taken;
            foreach (byte value in piece)
            {
                if (value == ' ')
                {
                    inWord = false;
                    if (!mergeSpaces)
                    {
                        output.Add(SentencePieceTokenizer.SpaceMark);
                    }

                    continue;
                }

                if (!inWord)
                {
                    inWord = true;
                    if ((spaceInFront && !put) || mergeSpaces)
                    {
                        output.Add(SentencePieceTokenizer.SpaceMark);
                        put = true;
                    }
                }

                output.Add(value);
            }
        }

        return true;
    }
}
