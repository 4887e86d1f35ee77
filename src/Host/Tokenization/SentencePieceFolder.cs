using System.Text;
using System.Text.Json;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Makes a tokenizer from a SentencePiece model file and what stands beside it in a Hugging Face folder.</summary>
internal static class SentencePieceFolder
{
    private const double UnknownPenalty = 10;

    /// <summary>Makes the tokenizer.</summary>
    /// <exception cref="ModelFormatException">A file is malformed or inconsistent.</exception>
    /// <exception cref="UnsupportedModelException">A kind of model that is not supported.</exception>
    public static Tokenizer Load(string path, byte[] bytes, HuggingFaceFolder folder, JsonValue? addedTokens)
    {
        SentencePieceModel model = SentencePieceModel.Read(path, bytes);
        HuggingFaceVocabulary vocabulary = new(path);
        for (int id = 0; id < model.Pieces.Count; id++)
        {
            vocabulary.Add(id, model.Pieces[id]);
        }

        ReadAdded(path, vocabulary, folder, addedTokens);
        vocabulary.Build(JsonValue.Parse(path, "", "{}"u8.ToArray()));
        for (int id = 0; id < model.Pieces.Count; id++)
        {
            if (vocabulary.Kinds[id] == TokenKind.Normal || model.Kinds[id] == TokenKind.Unknown)
            {
                vocabulary.Kinds[id] = model.Kinds[id];
            }
        }

        int[] symbols = [.. Enumerable.Range(0, model.Pieces.Count).Where(id => model.Kinds[id] == TokenKind.UserDefined)];
        // What llama's vocabularies in GGUF are: their encoder is the same, and other programs can be given the file.
        bool plain = !model.IsUnigram && model.ByteFallback && model.CharsMap is null && !model.RemovesExtraSpaces
            && !symbols.Any(id => model.Pieces[id].AsSpan().IndexOf(SentencePieceTokenizer.SpaceMark) >= 0);
        TokenizerData data = MakeData(model, vocabulary, folder, plain);
        return plain ? new SentencePieceTokenizer(data) : Pipeline(model, data, symbols);
    }

    private static void ReadAdded(string path, HuggingFaceVocabulary vocabulary, HuggingFaceFolder folder, JsonValue? addedTokens)
    {
        foreach ((int id, JsonValue token) in folder.AddedTokens())
        {
            vocabulary.ReadAdded(token, id);
        }

        if (addedTokens is { } added)
        {
            foreach ((string text, JsonValue id) in added.Entries())
            {
                // This old file does not tell which are special; most are a template's, and none is what a user should be able to type.
                string token = $$"""{"content":"{{JsonEncodedText.Encode(text)}}","special":true}""";
                vocabulary.ReadAdded(JsonValue.Parse(path, text, Encoding.UTF8.GetBytes(token)), (int)id.Integer(0, TokenizerData.MostTokens - 1));
            }
        }
    }

    private static TokenizerData MakeData(SentencePieceModel model, HuggingFaceVocabulary vocabulary, HuggingFaceFolder folder, bool plain)
    {
        int count = vocabulary.Kinds.Length;
        int? bos = Named(vocabulary, folder.TokenText("bos_token")) ?? InRange(model.BosId, model);
        int? eos = Named(vocabulary, folder.TokenText("eos_token")) ?? InRange(model.EosId, model);
        List<int> ends = folder.Ids("eos_token_id", count);
        return new TokenizerData
        {
            File = model.File,
            Model = plain ? "llama" : model.IsUnigram ? "t5" : "bpe",
            Texts = vocabulary.Texts,
            Index = vocabulary.Index,
            Kinds = vocabulary.Kinds,
            Scores = [.. model.Scores, .. new float[count - model.Scores.Count]],
            CharsMap = model.CharsMapBytes,
            RemovesExtraSpaces = model.RemovesExtraSpaces,
            AddsSpacePrefix = model.AddsDummyPrefix,
            AddedOptions = vocabulary.Options,
            BosId = bos,
            EosId = eos,
            UnknownId = model.UnknownId,
            PadId = Named(vocabulary, folder.TokenText("pad_token")) ?? InRange(model.PadId, model),
            // Llama's way for BPE and T5's for Unigram, where no file tells.
            AddsBos = folder.Flag("add_bos_token") ?? !model.IsUnigram,
            AddsEos = folder.Flag("add_eos_token") ?? model.IsUnigram,
            EndsGeneration = TokenizerData.EndsOf(count, vocabulary.Index, [eos, .. ends.Select(e => (int?)e)]),
        };
    }

    private static PipelineTokenizer Pipeline(SentencePieceModel model, TokenizerData data, int[] symbols)
    {
        ByteStrings.Builder symbolTexts = new(symbols.Length);
        foreach (int id in symbols)
        {
            symbolTexts.Add(model.Pieces[id]);
        }

        TokenPieces pieces = new() { ByteFallback = true };
        pieces.Replacements.Add((SentencePieceTokenizer.SpaceMark.ToArray(), [(byte)' ']));
        return new PipelineTokenizer(data, new TokenizerPipeline
        {
            Model = data.Model,
            Normalizer = new SentencePieceModelNormalizer(model.CharsMap, new PrefixTrie(data.Texts, symbols), model.AddsDummyPrefix, model.RemovesExtraSpaces),
            Words = model.IsUnigram ? Unigram(model, data) : Pair(model, data),
            Pieces = pieces.Build(data),
            AddsSpacePrefix = model.AddsDummyPrefix,
            NormalizedAdded = symbols.Length == 0 ? null : (symbolTexts.Build(), symbols),
        });
    }

    private static Func<WordEncoder> Pair(SentencePieceModel model, TokenizerData data)
    {
        SentencePieceVocabulary vocabulary = new(data);
        int fused = model.ByteFallback ? -1 : model.UnknownId;
        return () => new SentencePieceWordEncoder(new SentencePieceEncoder(vocabulary), fused);
    }

    private static Func<WordEncoder> Unigram(SentencePieceModel model, TokenizerData data)
    {
        IEnumerable<int> normal = Enumerable.Range(0, model.Pieces.Count).Where(id => model.Kinds[id] == TokenKind.Normal);
        double[] scores = [.. data.Scores!.Select(s => (double)s)];
        int[] bytes = GgufPipelines.ByteTokens(data.Index);
        UnigramVocabulary vocabulary = new(new PrefixTrie(data.Texts, normal), new ByteStringIndex(new ByteStrings.Builder(0).Build()), scores,
            normal.Select(id => scores[id]).DefaultIfEmpty(0).Min() - UnknownPenalty, model.UnknownId, model.ByteFallback && !bytes.Contains(-1) ? bytes : null);
        return () => new UnigramEncoder(vocabulary);
    }

    private static int? Named(HuggingFaceVocabulary vocabulary, string? text) => text is not null && vocabulary.Index.Find(Encoding.UTF8.GetBytes(text)) is >= 0 and int id ? id : null;

    private static int? InRange(int id, SentencePieceModel model) => id >= 0 && id < model.Pieces.Count ? id : null;

    // SentencePiece makes one unknown token of a run of characters without a piece.
    private sealed class SentencePieceWordEncoder(SentencePieceEncoder encoder, int fused) : WordEncoder
    {
        protected override void EncodeNew(ReadOnlySpan<byte> word, List<int> ids)
        {
            int start = ids.Count;
            encoder.Encode(word, spaceInFront: false, ids);
            if (fused < 0)
            {
                return;
            }

            int kept = start;
            for (int at = start; at < ids.Count; at++)
            {
                if (ids[at] != fused || kept == start || ids[kept - 1] != fused)
                {
                    ids[kept++] = ids[at];
                }
            }

            ids.RemoveRange(kept, ids.Count - kept);
        }
    }
}
