using System.Text;

namespace Sluice.Tokenization;

/// <summary>Bytes that are appended to; the memory is kept from text to text, but for huge ones.</summary>
internal sealed class ByteBuffer
{
    private const int Kept = 1 << 20;

    private byte[] _bytes = [];

    public int Length { get; private set; }

    /// <summary>Bytes that it may hold.</summary>
    public int Limit { get; set; } = Array.MaxLength;

    public ReadOnlySpan<byte> Span => _bytes.AsSpan(0, Length);

    public void Clear()
    {
        Length = 0;
        if (_bytes.Length > Kept)
        {
            _bytes = [];
        }
    }

    /// <summary>Cuts what is behind <paramref name="length"/>.</summary>
    public void Truncate(int length) => Length = length;

    public void Add(byte value)
    {
        Grow(1);
        _bytes[Length++] = value;
    }

    public void Add(ReadOnlySpan<byte> bytes)
    {
        Grow(bytes.Length);
        bytes.CopyTo(_bytes.AsSpan(Length));
        Length += bytes.Length;
    }

    /// <summary>Appends a code point as UTF-8; a surrogate, which none is, as U+FFFD.</summary>
    public void AddCodePoint(int codePoint)
    {
        if (codePoint < 128)
        {
            Add((byte)codePoint);
            return;
        }

        Grow(4);
        Rune rune = Rune.IsValid(codePoint) ? new Rune(codePoint) : Rune.ReplacementChar;
        Length += rune.EncodeToUtf8(_bytes.AsSpan(Length));
    }

    private void Grow(int more)
    {
        if (more > Limit - Length)
        {
            throw new UnsupportedModelException("tokenizer.json", "normalizer", $"makes more than {Limit:N0} bytes of a text, which no model's does");
        }

        if (_bytes.Length - Length < more)
        {
            Array.Resize(ref _bytes, Math.Max(checked(Length + more), Math.Max(256, (int)Math.Min(Array.MaxLength, 2L * Length))));
        }
    }
}
