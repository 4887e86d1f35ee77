using System.Text;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Puts together the tokenizers of GGUF's less usual kinds of vocabulary.</summary>
internal static class GgufPipelines
{
    private const double UnknownPenalty = 10;

    // Names in tokenizer.ggml.pre whose vocabulary is of characters, not of bytes.
    private static readonly string[] CharacterNames = ["gemma4", "granite-embed-multi-311m", "sarvam-moe", "whitespace"];

    private static byte[] SpaceMark => SentencePieceTokenizer.SpaceMark.ToArray();

    /// <summary>True where a file of kind gpt2 holds a vocabulary of characters.</summary>
    public static bool IsCharacterPair(GgufFile file) => CharacterNames.Contains(file.Metadata.GetText("tokenizer.ggml.pre"));

    /// <summary>BPE over characters, with blanks as marks (Gemma 4), or words cut at white space.</summary>
    public static PipelineTokenizer CharacterPair(GgufFile file)
    {
        TokenizerData data = TokenizerData.FromGguf(file);
        MergeList merges = data.Merges ?? throw new ModelFormatException(file.Path, "tokenizer.ggml.merges", "is missing");
        bool words = data.PreTokenizer == "whitespace";
        int[] bytes = ByteTokens(data.Index);
        CharacterPairVocabulary vocabulary = new(data.Index, MergeTable.Create(merges))
        {
            ByteTokens = bytes,
            WholeLineFeeds = !words,
        };
        TokenPieces pieces = new() { ByteFallback = true };
        pieces.Replacements.Add((SpaceMark, [(byte)' ']));
        string field = "tokenizer.ggml.pre";
        return new PipelineTokenizer(data, new TokenizerPipeline
        {
            Model = "gemma4",
            Normalizer = words ? null : new ReplaceNormalizer(SplitStep.Literal([(byte)' ']), SpaceMark),
            Steps = [new SplitStep(RegexRule.Create(words ? @"\S+" : RegexTexts.Lines, file.Path, field), SplitBehavior.Isolated)],
            Words = () => new CharacterPairEncoder(vocabulary),
            Pieces = pieces.Build(data),
        }, addsBosByDefault: data.PreTokenizer is null or "gemma4" or "granite-embed-multi-311m");
    }

    /// <summary>Unigram (T5).</summary>
    public static PipelineTokenizer Unigram(GgufFile file)
    {
        TokenizerData data = TokenizerData.FromGguf(file);
        float[] scores = data.Scores ?? throw new ModelFormatException(file.Path, "tokenizer.ggml.scores", "is missing");
        double least = double.MaxValue;
        double[] wide = new double[scores.Length];
        for (int id = 0; id < scores.Length; id++)
        {
            // A token that was added is always taken.
            wide[id] = data.Kinds[id] == TokenKind.UserDefined ? 0 : scores[id];
            least = data.Kinds[id] == TokenKind.Normal ? Math.Min(least, scores[id]) : least;
        }

        IEnumerable<int> pieces = Enumerable.Range(0, data.Count).Where(id => data.Kinds[id] is TokenKind.Normal or TokenKind.UserDefined or TokenKind.Unused);
        PrefixTrie trie = new(data.Texts, pieces);
        ByteStrings none = new ByteStrings.Builder(0).Build();
        UnigramVocabulary vocabulary = new(trie, new ByteStringIndex(none), wide, least - UnknownPenalty, data.UnknownId ?? -1, null);
        bool spaceInFront = data.AddsSpacePrefix ?? false;
        TokenPieces texts = new() { ByteFallback = true };
        texts.Replacements.Add((SpaceMark, [(byte)' ']));
        return new PipelineTokenizer(data, new TokenizerPipeline
        {
            Model = "t5",
            Normalizer = new SentencePieceNormalizer(ReadCharsMap(file.Path, "tokenizer.ggml.precompiled_charsmap", data.CharsMap), spaceInFront, data.RemovesExtraSpaces),
            Words = () => new UnigramEncoder(vocabulary),
            Pieces = texts.Build(data),
            AddsSpacePrefix = spaceInFront || data.RemovesExtraSpaces,
        });
    }

    /// <summary>WordPiece (BERT); GGUF marks pieces that begin a word, and not those that continue it.</summary>
    public static PipelineTokenizer WordPiece(GgufFile file)
    {
        TokenizerData data = TokenizerData.FromGguf(file);
        WordPieceOptions options = new(data.Index, SpaceMark, [], data.UnknownId ?? -1, int.MaxValue);
        TokenPieces pieces = new();
        pieces.Replacements.Add((SpaceMark, [(byte)' ']));
        return new PipelineTokenizer(data, new TokenizerPipeline
        {
            Model = "bert",
            Normalizer = new BertNormalizer(cleanText: true, handleChinese: true, data.StripsAccents, data.Lowercase),
            Steps = BertWords(),
            Words = () => new WordPieceEncoder(options),
            Pieces = pieces.Build(data),
            AddsSpacePrefix = true,
        }, addsBosByDefault: true);
    }

    /// <summary>BERT's steps: cut at white space, and around each punctuation character.</summary>
    public static PreTokenizerStep[] BertWords() =>
    [
        new SplitStep(SplitStep.OneBy(IsSpace), SplitBehavior.Removed), new SplitStep(SplitStep.OneBy(IsPunctuation), SplitBehavior.Isolated),
    ];

    public static bool IsSpace(int codePoint) => Rune.IsWhiteSpace(new Rune(codePoint));

    /// <summary>Unicode's punctuation, and all of ASCII's signs.</summary>
    public static bool IsPunctuation(int codePoint) => codePoint < 128 ? char.IsAscii((char)codePoint) && (CharClass.Of(new Rune(codePoint)) & (CharClass.Punctuation | CharClass.Symbol)) != 0
        : (CharClass.Of(new Rune(codePoint)) & CharClass.Punctuation) != 0;

    /// <summary>The token of each byte, written like &lt;0x0A&gt;, or -1.</summary>
    public static int[] ByteTokens(ByteStringIndex index)
    {
        int[] tokens = new int[256];
        for (int value = 0; value < 256; value++)
        {
            tokens[value] = index.Find(Encoding.ASCII.GetBytes($"<0x{value:X2}>"));
        }

        return tokens;
    }

    /// <summary>Reads a character map; null stays null.</summary>
    /// <exception cref="ModelFormatException">It is malformed.</exception>
    public static CharsMap? ReadCharsMap(string file, string field, byte[]? map)
    {
        try
        {
            return map is null || map.Length == 0 ? null : new CharsMap(map);
        }
        catch (FormatException e)
        {
            throw new ModelFormatException(file, field, e.Message, e);
        }
    }
}
