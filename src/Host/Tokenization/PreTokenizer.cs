namespace Sluice.Tokenization;

/// <summary>
/// Cuts text into the words inside which byte-level BPE may merge. A family with several regular expressions runs them in turn,
/// each inside the pieces that the one before left; what an expression does not match stays a piece.
/// </summary>
internal sealed class PreTokenizer
{
    private static readonly Family[] Families =
    [
        new(["gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum", "modern-bert", "exaone4", "jina-es", "jina-de",
            "jina-v2-es", "jina-v2-de", "jina-v1-en", "jina-v2-code", "roberta-bpe"], [RegexTexts.Gpt2]),
        new(["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"], [RegexTexts.Llama3Ascii], IgnoresMerges: true, AddsBos: true),
        new(["smaug-bpe", "dbrx", "glm4", "chatglm-bpe"], [RegexTexts.Llama3Ascii]),
        new(["jais-2"], [RegexTexts.Jais2]),
        new(["qwen2", "stablelm2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "hunyuan", "solar-open", "grok-2"], [RegexTexts.Qwen2Ascii]),
        new(["qwen35"], [RegexTexts.Qwen35Ascii]),
        new(["minicpm5"], [@"\p{N}{1,3}", RegexTexts.AnyDigitsAscii], IgnoresMerges: true),
        new(["laguna"], [RegexTexts.Lines, RegexTexts.Qwen2Ascii]),
        new(["deepseek-llm"], [@"[\r\n]", RegexTexts.DeepSeekWords, RegexTexts.DeepSeekPunctuation, @"\s+$", RegexTexts.DeepSeekEastAsian, @"\p{N}+"]),
        new(["deepseek-coder"], [@"[\r\n]", @"\s?\p{L}+", @"\s?\p{P}+", RegexTexts.DeepSeekEastAsian, @"\p{N}"]),
        new(["deepseek-v3", "hunyuan-dense", "joyai-llm"], [@"\p{N}{1,3}", RegexTexts.DeepSeekV3EastAsian, RegexTexts.DeepSeekV3]),
        new(["youtu"], [RegexTexts.YoutuEastAsian, RegexTexts.Youtu], IgnoresMerges: true),
        new(["falcon"], [RegexTexts.Falcon, RegexTexts.Gpt2, "[0-9][0-9][0-9]"]),
        new(["starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"], [@"\p{N}", RegexTexts.Gpt2]),
        new(["tekken"], [RegexTexts.Tekken], IgnoresMerges: true, AddsBos: true),
        new(["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], [RegexTexts.Gpt4o]),
        new(["granite-embed-multi-97m"], [RegexTexts.Gpt4o], IgnoresMerges: true),
        new(["tiny_aya", "cohere2moe"], [RegexTexts.DigitsToWordEnd, RegexTexts.Gpt4o]),
        new(["kimi-k2"], [RegexTexts.KimiWords]),
        new(["superbpe"], [@"\p{N}+", RegexTexts.BeforeDigits]),
        new(["bailingmoe", "bailingmoe2", "llada-moe"], [RegexTexts.BailingMoe]),
        new(["seed-coder"], [RegexTexts.SeedCoder]),
        new(["exaone-moe"], [RegexTexts.ExaoneMoe]),
        new(["afmoe"], [RegexTexts.DigitsToRunEnd, RegexTexts.AfmoeEastAsian, RegexTexts.DeepSeekV3]),
        new(["chameleon"], ["<sentinel:[0-9]+>", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", @"([\t\n]|    |  )", @"\p{N}", @"[\p{P}!-/:-@\[-`{-~]", RegexTexts.Gpt2], AddsBos: true),
        new(["poro-chat", "bloom", "gpt3-finnish"], [RegexTexts.Bloom]),
        new(["viking"], [RegexTexts.Bloom, @"\p{N}"]),
        new(["default"], [@"[\p{P}\$\+<=>\^~\|]+", RegexTexts.Gpt2, @"\p{N}+", "[0-9][0-9][0-9]"]),
    ];

    private readonly WordRule[] _rules;

    /// <summary>Makes a pre-tokenizer of some rules, which run in turn.</summary>
    public PreTokenizer(IEnumerable<WordRule> rules) => _rules = [.. rules];

    /// <summary>True where a word that is a token is that token, whatever the merges would give.</summary>
    public bool IgnoresMerges { get; private init; }

    /// <summary>True where the family begins a sequence with BOS unless its file says otherwise.</summary>
    public bool AddsBos { get; private init; }

    /// <summary>The names in <c>tokenizer.ggml.pre</c> that are known.</summary>
    public static IEnumerable<string> KnownNames => Families.SelectMany(f => f.Names);

    /// <summary>The pre-tokenizer of a name in <c>tokenizer.ggml.pre</c>, or null.</summary>
    public static PreTokenizer? Find(string name)
    {
        Family? family = Array.Find(Families, f => f.Names.Contains(name));
        return family is null ? null
            : new PreTokenizer(family.Expressions.Select(e => RegexRule.Create(e, name, "tokenizer.ggml.pre"))) { IgnoresMerges = family.IgnoresMerges, AddsBos = family.AddsBos };
    }

    /// <summary>The expressions of a name in <c>tokenizer.ggml.pre</c>, or null.</summary>
    public static IReadOnlyList<string>? ExpressionsOf(string name) => Array.Find(Families, f => f.Names.Contains(name))?.Expressions;

    /// <summary>Sets <paramref name="ends"/> to the end of each word, in order. The words cover the text. <paramref name="scratch"/> is overwritten.</summary>
    public void Split(ReadOnlySpan<byte> text, List<int> ends, List<int> scratch)
    {
        ends.Clear();
        if (text.IsEmpty)
        {
            return;
        }

        ends.Add(text.Length);
        foreach (WordRule rule in _rules)
        {
            scratch.Clear();
            scratch.AddRange(ends);
            ends.Clear();
            int start = 0;
            foreach (int end in scratch)
            {
                SplitPiece(text[start..end], start, rule, ends);
                start = end;
            }
        }
    }

    private static void SplitPiece(ReadOnlySpan<byte> text, int offset, WordRule rule, List<int> ends)
    {
        int gap = 0;
        int position = 0;
        while (position < text.Length)
        {
            int matched = rule(text, position);
            if (matched < 0)
            {
                position -= matched;
                continue;
            }

            if (position > gap)
            {
                ends.Add(offset + position);
            }

            gap = position;
            if (matched == 0)
            {
                // A match of nothing cuts, and takes nothing: look behind the next character.
                CharClass.At(text, position, out matched);
                position += matched;
                continue;
            }

            position += matched;
            gap = position;
            ends.Add(offset + position);
        }

        if (position > gap)
        {
            ends.Add(offset + position);
        }
    }

    // Expressions run in turn.
    private sealed record Family(string[] Names, string[] Expressions, bool IgnoresMerges = false, bool AddsBos = false);
}
