namespace Sluice.Tokenization;

/// <summary>The script of each code point (Unicode's Scripts.txt).</summary>
internal static class UnicodeScripts
{
    private static readonly string[] Names = UnicodeTables.ScriptNames.Split(' ');
    private static readonly (int[] Ends, short[] Scripts) Ranges = Read();

    /// <summary>The number of a script by its long name, whatever its case and without underscores, or -1.</summary>
    public static int Find(string name)
    {
        string wanted = name.Replace("_", "", StringComparison.Ordinal);
        return Array.FindIndex(Names, n => n.Replace("_", "", StringComparison.Ordinal).Equals(wanted, StringComparison.OrdinalIgnoreCase));
    }

    /// <summary>The number of the script of a code point, or -1.</summary>
    public static int Of(int codePoint)
    {
        int at = Array.BinarySearch(Ranges.Ends, codePoint);
        at = at < 0 ? ~at : at + 1;
        return at < Ranges.Scripts.Length ? Ranges.Scripts[at] : -1;
    }

    private static (int[] Ends, short[] Scripts) Read()
    {
        PackedIntegers reader = new(UnicodeTables.Scripts);
        List<int> ends = [];
        List<short> scripts = [];
        int code = 0;
        for (int count = reader.Next(); count > 0; count--)
        {
            int gap = reader.Next();
            if (gap > 0)
            {
                ends.Add(code += gap);
                scripts.Add(-1);
            }

            ends.Add(code += reader.Next());
            scripts.Add((short)reader.Next());
        }

        return ([.. ends], [.. scripts]);
    }
}
