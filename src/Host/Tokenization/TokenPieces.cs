using System.Globalization;
using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>How the texts of a vocabulary become the bytes that tokens stand for.</summary>
internal sealed class TokenPieces
{
    /// <summary>Texts are written with GPT-2's characters for bytes.</summary>
    public bool ByteLevel { get; set; }

    /// <summary>Texts like &lt;0x0A&gt; are a byte.</summary>
    public bool ByteFallback { get; set; }

    /// <summary>What stands for what, in order.</summary>
    public List<(byte[] From, byte[] To)> Replacements { get; } = [];

    /// <summary>Pieces that continue a word begin with this, and others begin a word, with a blank; null where there is no such mark.</summary>
    public byte[]? ContinuingPrefix { get; set; }

    /// <summary>Pieces that end a word end with this, which becomes a blank; null where there is no such mark.</summary>
    public byte[]? WordSuffix { get; set; }

    /// <summary>The byte of a text like &lt;0x0A&gt;, or -1.</summary>
    public static int ByteOf(ReadOnlySpan<byte> text) => text.Length == 6 && text.StartsWith("<0x"u8) && text[5] == '>'
        && byte.TryParse(text.Slice(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value) ? value : -1;

    /// <summary>The bytes of all tokens: nothing for unused ones, and added ones as they are written.</summary>
    public ByteStrings Build(TokenizerData data)
    {
        ByteStrings.Builder pieces = new(data.Count);
        List<byte> bytes = [];
        for (int id = 0; id < data.Count; id++)
        {
            ReadOnlySpan<byte> text = data.Texts[id];
            bytes.Clear();
            if (data.Kinds[id] is TokenKind.Normal or TokenKind.Byte)
            {
                Convert(text, bytes);
            }
            else if (data.Kinds[id] != TokenKind.Unused)
            {
                bytes.AddRange(text);
            }

            pieces.Add(CollectionsMarshal.AsSpan(bytes));
        }

        return pieces.Build();
    }

    private void Convert(ReadOnlySpan<byte> text, List<byte> bytes)
    {
        if (ByteFallback && ByteOf(text) is >= 0 and int value)
        {
            bytes.Add((byte)value);
            return;
        }

        if (ByteLevel)
        {
            ByteAlphabet.Decode(text, bytes);
            return;
        }

        bool endsWord = WordSuffix is { Length: > 0 } suffix && text.EndsWith(suffix);
        text = endsWord ? text[..^WordSuffix!.Length] : text;
        if (ContinuingPrefix is { } prefix)
        {
            bool continues = prefix.Length > 0 && text.StartsWith(prefix);
            text = continues ? text[prefix.Length..] : text;
            if (!continues)
            {
                bytes.Add((byte)' ');
            }
        }

        foreach ((byte[] from, byte[] to) in Replacements)
        {
            if (text.IndexOf(from) < 0)
            {
                continue;
            }

            ByteBuffer replaced = new();
            ReadOnlySpan<byte> rest = text;
            for (int at = rest.IndexOf(from); at >= 0; at = rest.IndexOf(from))
            {
                replaced.Add(rest[..at]);
                replaced.Add(to);
                rest = rest[(at + from.Length)..];
            }

            replaced.Add(rest);
            text = replaced.Span;
        }

        bytes.AddRange(text);
        if (endsWord)
        {
            bytes.Add((byte)' ');
        }
    }
}
