namespace Sluice.Tokenization;

/// <summary>What normalization needs to know of code points, unpacked from <see cref="UnicodeTables"/> (60 kB to 200 kB, made at first use).</summary>
internal sealed class NormalizationTables
{
    private const int BlockBits = 7;
    private const int Limit = 0x30000; // above it nothing decomposes or has a class
    private const uint NotNfc = 1 << 8;
    private const uint NotNfd = 1 << 9;
    private const uint NotNfkc = 1 << 10;
    private const uint NotNfkd = 1 << 11;

    // A word a code point: the combining class, four flags (whether a form may change it), and from bit 12 on its decomposition's number.
    private readonly ushort[] _blocks = new ushort[Limit >> BlockBits];
    private readonly List<uint> _words = [.. new uint[1 << BlockBits]];
    private readonly List<(int[] Canonical, int[] Compatible)> _decompositions = [([], [])];
    private readonly Dictionary<long, int> _compositions = [];

    public NormalizationTables()
    {
        Dictionary<int, (bool Compatible, int[] Parts)> direct = ReadDecompositions();
        HashSet<int> excluded = ReadExclusions();
        ReadClasses();
        foreach ((int code, (bool compatible, int[] parts)) in direct)
        {
            List<int> canonical = [];
            List<int> full = [];
            Expand(code, direct, compatible: false, canonical);
            Expand(code, direct, compatible: true, full);
            bool plain = canonical.Count == 1 && canonical[0] == code;
            uint flags = NotNfkd;
            flags |= plain ? 0 : NotNfd;
            flags |= excluded.Contains(code) ? NotNfc : 0;
            flags |= excluded.Contains(code) || !canonical.SequenceEqual(full) ? NotNfkc : 0;
            WordOf(code) |= flags | ((uint)_decompositions.Count << 12);
            _decompositions.Add((plain ? [] : [.. canonical], [.. full]));
            if (!compatible && !excluded.Contains(code))
            {
                _compositions.Add(Pair(parts[0], parts[1]), code);
                WordOf(parts[1]) |= NotNfc | NotNfkc;
            }
        }

        for (int jamo = 0x1161; jamo <= 0x1175; jamo++)
        {
            WordOf(jamo) |= NotNfc | NotNfkc;
        }

        for (int jamo = 0x11A8; jamo <= 0x11C2; jamo++)
        {
            WordOf(jamo) |= NotNfc | NotNfkc;
        }
    }

    /// <summary>The combining class of a code point, and whether the form may change it or join it to what stands before.</summary>
    public int Inspect(int codePoint, UnicodeForm form, out bool suspect)
    {
        if (codePoint >= Limit)
        {
            suspect = false;
            return 0;
        }

        if (codePoint is >= 0xAC00 and < 0xAC00 + 11172)
        {
            suspect = form is UnicodeForm.Nfd or UnicodeForm.Nfkd;
            return 0;
        }

        uint word = _words[(_blocks[codePoint >> BlockBits] << BlockBits) + (codePoint & ((1 << BlockBits) - 1))];
        suspect = (word & (NotNfc << (int)form)) != 0;
        return (byte)word;
    }

    /// <summary>The full decomposition, or null. Hangul syllables have none here.</summary>
    public int[]? Decomposition(int codePoint, bool compatible)
    {
        if (codePoint >= Limit)
        {
            return null;
        }

        uint word = _words[(_blocks[codePoint >> BlockBits] << BlockBits) + (codePoint & ((1 << BlockBits) - 1))];
        (int[] canonical, int[] full) = _decompositions[(int)(word >> 12)];
        int[] parts = compatible ? full : canonical;
        return parts.Length == 0 ? null : parts;
    }

    /// <summary>What two code points compose to, or -1.</summary>
    public int Composition(int first, int second) => _compositions.TryGetValue(Pair(first, second), out int composed) ? composed : -1;

    private static long Pair(int first, int second) => ((long)first << 32) | (uint)second;

    private static void Expand(int code, Dictionary<int, (bool Compatible, int[] Parts)> direct, bool compatible, List<int> points)
    {
        if (!direct.TryGetValue(code, out (bool Compatible, int[] Parts) entry) || (entry.Compatible && !compatible))
        {
            points.Add(code);
            return;
        }

        foreach (int part in entry.Parts)
        {
            Expand(part, direct, compatible, points);
        }
    }

    private static Dictionary<int, (bool Compatible, int[] Parts)> ReadDecompositions()
    {
        PackedIntegers reader = new(UnicodeTables.Decompositions);
        Dictionary<int, (bool, int[])> direct = [];
        int code = 0;
        for (int count = reader.Next(); count > 0; count--)
        {
            code += reader.Next();
            int shape = reader.Next();
            int[] parts = new int[shape / 2];
            for (int i = 0; i < parts.Length; i++)
            {
                parts[i] = reader.Next();
            }

            direct.Add(code, (shape % 2 == 1, parts));
        }

        return direct;
    }

    private static HashSet<int> ReadExclusions()
    {
        PackedIntegers reader = new(UnicodeTables.Exclusions);
        HashSet<int> excluded = [];
        int code = 0;
        for (int count = reader.Next(); count > 0; count--)
        {
            code += reader.Next();
            excluded.Add(code);
        }

        return excluded;
    }

    private void ReadClasses()
    {
        PackedIntegers reader = new(UnicodeTables.Classes);
        int code = 0;
        for (int count = reader.Next(); count > 0; count--)
        {
            code += reader.Next();
            int end = code + reader.Next();
            uint value = (uint)reader.Next();
            for (; code < end; code++)
            {
                WordOf(code) |= value;
            }
        }
    }

    private ref uint WordOf(int code)
    {
        ref ushort block = ref _blocks[code >> BlockBits];
        if (block == 0)
        {
            block = (ushort)(_words.Count >> BlockBits);
            _words.AddRange(new uint[1 << BlockBits]);
        }

        return ref System.Runtime.InteropServices.CollectionsMarshal.AsSpan(_words)[(block << BlockBits) + (code & ((1 << BlockBits) - 1))];
    }
}
