using System.Text;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Makes normalizers and pre-tokenizers from a tokenizer.json.</summary>
internal sealed class HuggingFaceParts(string file)
{
    private const int MostParts = 256;
    private const int MostNested = 16;

    private int _parts;

    /// <summary>The character map of the normalizer that was read last, or null.</summary>
    public byte[]? CharsMap { get; private set; }

    /// <summary>BERT's options as they were read last.</summary>
    public (bool Lowercase, bool StripsAccents) Bert { get; private set; }

    /// <summary>The type of a component.</summary>
    public static string TypeOf(JsonValue component) => component.Require("type").Text();

    /// <summary>A normalizer; null gives null.</summary>
    /// <exception cref="UnsupportedModelException">It is of a kind that is not known.</exception>
    public TextNormalizer? Normalizer(JsonValue? component, int depth = 0)
    {
        if (component is not { } c)
        {
            return null;
        }

        Count(c, depth);
        switch (TypeOf(c))
        {
            case "Sequence":
                return new SequenceNormalizer([.. c.Require("normalizers").Items().Select(i => Normalizer(i, depth + 1)!)]);
            case "NFC":
                return new FormNormalizer(UnicodeForm.Nfc);
            case "NFD":
                return new FormNormalizer(UnicodeForm.Nfd);
            case "NFKC":
                return new FormNormalizer(UnicodeForm.Nfkc);
            case "NFKD":
                return new FormNormalizer(UnicodeForm.Nfkd);
            case "Lowercase":
                return MapNormalizer.Lowercase;
            case "StripAccents":
                return MapNormalizer.StripAccents;
            case "Nmt":
                return MapNormalizer.Nmt;
            case "ByteLevel":
                return new ByteLevelNormalizer();
            case "Strip":
                return new StripNormalizer(c.Boolean("strip_left") ?? true, c.Boolean("strip_right") ?? true);
            case "Prepend":
                return new PrependNormalizer(Encoding.UTF8.GetBytes(c.Require("prepend").Text()));
            case "Replace":
                return Pattern(c) is { } rule
                    ? new ReplaceNormalizer(rule, Encoding.UTF8.GetBytes(c.Require("content").Text()))
                    : new SequenceNormalizer([]);
            case "BertNormalizer":
                bool lowercase = c.Boolean("lowercase") ?? true;
                Bert = (lowercase, c.Boolean("strip_accents") ?? lowercase);
                return new BertNormalizer(c.Boolean("clean_text") ?? true, c.Boolean("handle_chinese_chars") ?? true, Bert.StripsAccents, lowercase);
            case "Precompiled":
                JsonValue map = c.Require("precompiled_charsmap");
                CharsMap = Base64(map);
                CharsMap? read = GgufPipelines.ReadCharsMap(file, map.Field, CharsMap);
                return read is null ? new SequenceNormalizer([]) : new PrecompiledNormalizer(read);
            default:
                throw c.Unsupported($"is of type '{TypeOf(c)}', and no normalizer of that type is known");
        }
    }

    /// <summary>Appends the steps of a pre-tokenizer; null gives none.</summary>
    /// <exception cref="UnsupportedModelException">It is of a kind that is not known.</exception>
    public void Steps(JsonValue? component, List<PreTokenizerStep> steps, List<string?> expressions, int depth = 0)
    {
        if (component is not { } c)
        {
            return;
        }

        Count(c, depth);
        string? expression = null;
        switch (TypeOf(c))
        {
            case "Sequence":
                foreach (JsonValue item in c.Require("pretokenizers").Items())
                {
                    Steps(item, steps, expressions, depth + 1);
                }

                return;
            case "ByteLevel":
                bool useExpression = c.Boolean("use_regex") ?? true;
                steps.Add(new ByteLevelStep(c.Boolean("add_prefix_space") ?? true, useExpression));
                if (useExpression)
                {
                    expressions.Add(RegexTexts.Gpt2);
                }

                return;
            case "Split":
                SplitBehavior behavior = Behavior(c, SplitBehavior.Isolated);
                bool invert = c.Boolean("invert") ?? false;
                if (Pattern(c) is { } rule)
                {
                    steps.Add(new SplitStep(rule, behavior, invert));
                    expression = behavior == SplitBehavior.Isolated && !invert ? c.Get("pattern")?.Text("Regex") : null;
                    expressions.Add(expression);
                }

                return;
            case "Digits":
                bool single = c.Boolean("individual_digits") ?? false;
                steps.Add(new SplitStep(RegexRule.Create(single ? @"\p{N}" : @"\p{N}+", file, c.Field), SplitBehavior.Isolated));
                expressions.Add(single ? @"\p{N}" : @"\p{N}+");
                return;
            case "Punctuation":
                steps.Add(new SplitStep(SplitStep.OneBy(GgufPipelines.IsPunctuation), Behavior(c, SplitBehavior.Isolated)));
                expression = "punctuation";
                break;
            case "Whitespace":
                steps.Add(new SplitStep(WordsOrSigns, SplitBehavior.Isolated));
                steps.Add(new SplitStep(SplitStep.OneBy(GgufPipelines.IsSpace), SplitBehavior.Removed));
                break;
            case "WhitespaceSplit":
                steps.Add(new SplitStep(SplitStep.OneBy(GgufPipelines.IsSpace), SplitBehavior.Removed));
                break;
            case "BertPreTokenizer":
                steps.AddRange(GgufPipelines.BertWords());
                break;
            case "CharDelimiterSplit":
                steps.Add(new SplitStep(SplitStep.Literal(Encoding.UTF8.GetBytes(OneCharacter(c.Require("delimiter")).ToString())), SplitBehavior.Removed));
                break;
            case "Metaspace":
                steps.Add(Metaspace(c));
                break;
            case "UnicodeScripts":
                steps.Add(new UnicodeScriptsStep());
                break;
            default:
                throw c.Unsupported($"is of type '{TypeOf(c)}', and no pre-tokenizer of that type is known");
        }

        expressions.Add(expression);
    }

    /// <summary>The one character of a text.</summary>
    /// <exception cref="ModelFormatException">The text is not of one character.</exception>
    public static Rune OneCharacter(JsonValue value)
    {
        string text = value.Text();
        return Rune.DecodeFromUtf16(text, out Rune rune, out int taken) == System.Buffers.OperationStatus.Done && taken == text.Length ? rune
            : throw value.Malformed($"is a text of {text.Length:N0} characters, and one is expected");
    }

    // \w+|[^\w\s]+ by Rust's regular expressions.
    private static int WordsOrSigns(ReadOnlySpan<byte> text, int position)
    {
        if ((CharClass.At(text, position, out int length) & CharClass.Space) != 0)
        {
            return -length;
        }

        bool word = CodePointSet.AlphabeticWord.MatchesAt(text, position, out length);
        int at = position + length;
        while (at < text.Length && CodePointSet.AlphabeticWord.MatchesAt(text, at, out length) == word && (CharClass.At(text, at, out _) & CharClass.Space) == 0)
        {
            at += length;
        }

        return at - position;
    }

    private static MetaspaceStep Metaspace(JsonValue c)
    {
        Rune mark = c.Get("replacement") is { } replacement ? OneCharacter(replacement) : new Rune(0x2581);
        bool legacy = c.Boolean("add_prefix_space") ?? true;
        PrependScheme scheme = c.Get("prepend_scheme") is { } named
            ? named.Text() switch
            {
                "always" => PrependScheme.Always,
                "first" => PrependScheme.First,
                "never" => PrependScheme.Never,
                _ => throw named.Unsupported($"is '{named.Text()}', and always, first and never are known"),
            }
            : legacy ? PrependScheme.Always : PrependScheme.Never;
        return new MetaspaceStep(mark, scheme, c.Boolean("split") ?? true);
    }

    private static SplitBehavior Behavior(JsonValue c, SplitBehavior usual) => c.Get("behavior") is not { } named ? usual
        : named.Text() switch
        {
            "Removed" => SplitBehavior.Removed,
            "Isolated" => SplitBehavior.Isolated,
            "MergedWithPrevious" => SplitBehavior.MergedWithPrevious,
            "MergedWithNext" => SplitBehavior.MergedWithNext,
            "Contiguous" => SplitBehavior.Contiguous,
            _ => throw named.Unsupported($"is '{named.Text()}', and no behavior of that name is known"),
        };

    private static byte[] Base64(JsonValue value)
    {
        try
        {
            return Convert.FromBase64String(value.Text());
        }
        catch (FormatException e)
        {
            throw value.Malformed($"is no Base64: {e.Message}");
        }
    }

    // Null for a pattern that matches nothing.
    private WordRule? Pattern(JsonValue component)
    {
        JsonValue pattern = component.Require("pattern");
        if (pattern.Element.ValueKind == System.Text.Json.JsonValueKind.String)
        {
            return Literal(pattern.Text());
        }

        if (pattern.Get("String") is { } text)
        {
            return Literal(text.Text());
        }

        JsonValue expression = pattern.Require("Regex");
        return RegexRule.Create(expression.Text(), file, expression.Field);

        static WordRule? Literal(string wanted) => wanted.Length > 0 ? SplitStep.Literal(Encoding.UTF8.GetBytes(wanted)) : null;
    }

    private void Count(JsonValue component, int depth)
    {
        if (depth > MostNested || ++_parts > MostParts)
        {
            throw component.Unsupported($"is more than {MostParts} components, or nests them deeper than {MostNested}");
        }
    }
}
