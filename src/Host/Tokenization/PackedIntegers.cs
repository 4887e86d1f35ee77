namespace Sluice.Tokenization;

/// <summary>Reads the variable-length integers of <see cref="UnicodeTables"/>.</summary>
internal struct PackedIntegers(string packed)
{
    private readonly byte[] _bytes = Convert.FromBase64String(packed);
    private int _at;

    /// <summary>The next integer: seven bits a byte, the least first, the top bit where more follow.</summary>
    public int Next()
    {
        int value = 0;
        for (int shift = 0; ; shift += 7)
        {
            byte part = _bytes[_at++];
            value |= (part & 127) << shift;
            if (part < 128)
            {
                return value;
            }
        }
    }
}
