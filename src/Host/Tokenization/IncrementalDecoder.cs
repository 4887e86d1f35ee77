using System.Text;

namespace Sluice.Tokenization;

/// <summary>Text from tokens as they come. A character whose bytes are spread over tokens is given when its last byte is there; broken sequences become U+FFFD. One thread at a time.</summary>
public sealed class IncrementalDecoder(Tokenizer tokenizer, bool skipSpecial = true)
{
    private readonly Decoder _decoder = Encoding.UTF8.GetDecoder();

    /// <summary>The text that a token completes; often the token's own, sometimes empty.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The id is not in the vocabulary.</exception>
    public string Push(int id) => skipSpecial && tokenizer.IsSpecial(id) ? "" : Decode(tokenizer.TokenBytes(id), flush: false);

    /// <summary>What is left at the end: U+FFFD for a character that was never completed, else nothing. Starts anew.</summary>
    public string Flush() => Decode([], flush: true);

    /// <summary>Forgets an incomplete character.</summary>
    public void Reset() => _decoder.Reset();

    private string Decode(ReadOnlySpan<byte> bytes, bool flush)
    {
        Span<char> small = stackalloc char[256];
        Span<char> chars = bytes.Length + 4 <= small.Length ? small : new char[bytes.Length + 4];
        int count = _decoder.GetChars(bytes, chars, flush);
        return count == 0 ? "" : chars[..count].ToString();
    }
}
