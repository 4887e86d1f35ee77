using System.Globalization;

namespace Sluice.Tokenization;

/// <summary>The properties that \p{...} and [:...:] can name.</summary>
internal static class RegexProperties
{
    private static readonly string[] Short =
    [
        "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Cn",
    ];

    private static readonly Dictionary<string, string> Long = new(StringComparer.OrdinalIgnoreCase)
    {
        ["Letter"] = "L", ["Mark"] = "M", ["Number"] = "N", ["Punctuation"] = "P", ["Punct"] = "P", ["Symbol"] = "S", ["Separator"] = "Z", ["Other"] = "C",
        ["UppercaseLetter"] = "Lu", ["LowercaseLetter"] = "Ll", ["TitlecaseLetter"] = "Lt", ["ModifierLetter"] = "Lm", ["OtherLetter"] = "Lo",
        ["NonspacingMark"] = "Mn", ["SpacingMark"] = "Mc", ["EnclosingMark"] = "Me", ["DecimalNumber"] = "Nd", ["LetterNumber"] = "Nl", ["OtherNumber"] = "No",
        ["SpaceSeparator"] = "Zs", ["LineSeparator"] = "Zl", ["ParagraphSeparator"] = "Zp", ["Control"] = "Cc", ["Cntrl"] = "Cc", ["Format"] = "Cf",
        ["Surrogate"] = "Cs", ["PrivateUse"] = "Co", ["Unassigned"] = "Cn", ["ConnectorPunctuation"] = "Pc", ["DashPunctuation"] = "Pd",
        ["OpenPunctuation"] = "Ps", ["ClosePunctuation"] = "Pe", ["InitialPunctuation"] = "Pi", ["FinalPunctuation"] = "Pf", ["OtherPunctuation"] = "Po",
        ["MathSymbol"] = "Sm", ["CurrencySymbol"] = "Sc", ["ModifierSymbol"] = "Sk", ["OtherSymbol"] = "So", ["Digit"] = "Nd",
    };

    public static CodePointSet HexDigit { get; } = CodePointSet.Union([CodePointSet.Range('0', '9'), CodePointSet.Range('A', 'F'), CodePointSet.Range('a', 'f')]);

    public static CodePointSet? Find(string name)
    {
        name = name.Replace("_", "", StringComparison.Ordinal).Replace(" ", "", StringComparison.Ordinal);
        name = Long.GetValueOrDefault(name, name);
        int[] categories = [.. Enumerable.Range(0, Short.Length).Where(i => Short[i].Equals(name, StringComparison.OrdinalIgnoreCase) || (name.Length == 1 && char.ToUpperInvariant(name[0]) == Short[i][0]))];
        if (categories.Length > 0)
        {
            return CodePointSet.Categories([.. categories.Select(i => (UnicodeCategory)i)]);
        }

        switch (name.ToUpperInvariant())
        {
            case "ANY":
                return CodePointSet.Any;
            case "ASCII":
                return CodePointSet.Range(0, 127);
            case "SPACE" or "WHITESPACE":
                return CodePointSet.Space;
            case "WORD":
                return CodePointSet.Word;
            case "XDIGIT":
                return HexDigit;
            case "ALPHA" or "ALPHABETIC":
                return CodePointSet.Union([Find("L")!, Find("Nl")!, Find("M")!]);
            case "ALNUM":
                return CodePointSet.Union([Find("L")!, Find("Nl")!, Find("M")!, CodePointSet.Digit]);
            case "UPPER" or "UPPERCASE":
                return Find("Lu");
            case "LOWER" or "LOWERCASE":
                return Find("Ll");
            case "BLANK":
                return CodePointSet.Union([Find("Zs")!, CodePointSet.Of('\t')]);
            default:
                int script = UnicodeScripts.Find(name);
                return script < 0 ? null : CodePointSet.Script(script);
        }
    }
}
