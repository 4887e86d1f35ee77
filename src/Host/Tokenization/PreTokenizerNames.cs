namespace Sluice.Tokenization;

/// <summary>Which name in <c>tokenizer.ggml.pre</c> stands for the expressions of a tokenizer.json.</summary>
internal static class PreTokenizerNames
{
    // Forms in tokenizer.json that are not written as GGUF's families are.
    private static readonly (string Name, string[] Expressions)[] Others =
    [
        ("deepseek-llm", [@"[\r\n]", RegexTexts.DeepSeekWords, RegexTexts.DeepSeekPunctuation, @"\s+$", RegexTexts.DeepSeekEastAsian, @"\p{N}"]),
        ("falcon", ["punctuation", RegexTexts.Gpt2, @"\p{N}+", "[0-9][0-9][0-9]"]),
        ("starcoder", [@"\p{N}", RegexTexts.Gpt2]),
    ];

    /// <summary>The name of some expressions that run in turn, or null; null among them is a step that has none.</summary>
    public static string? Find(IReadOnlyList<string?> expressions, bool ignoresMerges)
    {
        string[] wanted = [.. expressions.Select(Plain)];
        string? near = null;
        foreach (string name in PreTokenizer.KnownNames)
        {
            if (PreTokenizer.ExpressionsOf(name)!.Select(Plain).SequenceEqual(wanted))
            {
                if (PreTokenizer.Find(name)!.IgnoresMerges == ignoresMerges)
                {
                    return name;
                }

                near ??= name;
            }
        }

        return near ?? Array.Find(Others, o => o.Expressions.Select(Plain).SequenceEqual(wanted)).Name;
    }

    // One form of expressions that mean the same, but for the one letter U+017F.
    private static string Plain(string? expression) => expression switch
    {
        null => "",
        "[\r\n]" => @"[\r\n]",
        RegexTexts.Gpt2 + @"|\s+" => RegexTexts.Gpt2,
        RegexTexts.Llama3 => RegexTexts.Llama3Ascii,
        RegexTexts.Qwen2 => RegexTexts.Qwen2Ascii,
        RegexTexts.Qwen35 => RegexTexts.Qwen35Ascii,
        RegexTexts.AnyDigits => RegexTexts.AnyDigitsAscii,
        _ => expression,
    };
}
