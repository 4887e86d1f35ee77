using System.Text;
using System.Text.Json;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Makes a tokenizer from a tokenizer.json (Hugging Face's tokenizers library) and the files beside it.</summary>
internal sealed class HuggingFaceReader(string file, JsonValue top, HuggingFaceFolder folder)
{
    private readonly HuggingFaceVocabulary _vocabulary = new(file);
    private readonly HuggingFaceParts _parts = new(file);

    /// <summary>Reads the file; or, where <paramref name="bare"/> is given, a vocabulary and a list of merges that stand in files of their own.</summary>
    public PipelineTokenizer Read((JsonValue Vocabulary, byte[] Merges, string MergesFile)? bare)
    {
        if (bare is { } files)
        {
            _vocabulary.ReadObject(files.Vocabulary);
            ReadAdded();
            _vocabulary.Build(files.Vocabulary);
            return Assemble("BPE", null, ReadMergeLines(files.Merges, files.MergesFile));
        }

        JsonValue model = top.Require("model");
        string type = model.Text("type") ?? (model.Get("merges") is not null ? "BPE" : model.Get("unk_id") is not null ? "Unigram" : "WordPiece");
        JsonValue vocabulary = model.Require("vocab");
        switch (type)
        {
            case "BPE" or "WordPiece" or "WordLevel":
                _vocabulary.ReadObject(vocabulary);
                break;
            case "Unigram":
                _vocabulary.ReadScored(vocabulary);
                break;
            default:
                throw model.Unsupported($"is of type '{type}', and BPE, Unigram, WordPiece and WordLevel are known");
        }

        ReadAdded();
        _vocabulary.Build(vocabulary);
        return Assemble(type, model, type == "BPE" ? ReadMerges(model) : null);
    }

    /// <summary>Reads a vocabulary of one word a line.</summary>
    public PipelineTokenizer ReadWords(byte[] lines)
    {
        int id = 0;
        foreach (Range line in lines.AsSpan().Split((byte)'\n'))
        {
            ReadOnlySpan<byte> text = lines.AsSpan()[line].TrimEnd((byte)'\r');
            if (!text.IsEmpty)
            {
                _vocabulary.Add(id, text.ToArray());
            }

            if (++id > TokenizerData.MostTokens)
            {
                throw new ModelFormatException(file, "", $"has more than {TokenizerData.MostTokens:N0} lines");
            }
        }

        ReadAdded();
        _vocabulary.Build(top);
        return Assemble("WordPiece", null, null);
    }

    private void ReadAdded()
    {
        if (top.Get("added_tokens") is { } added)
        {
            foreach (JsonValue token in added.Items())
            {
                _vocabulary.ReadAdded(token, (int)token.Require("id").Integer(0, TokenizerData.MostTokens - 1));
            }
        }

        foreach ((int id, JsonValue token) in folder.AddedTokens())
        {
            _vocabulary.ReadAdded(token, id);
        }
    }

    private MergeList ReadMerges(JsonValue model)
    {
        JsonValue merges = model.Require("merges");
        int prefix = Encoding.UTF8.GetByteCount(model.Text("continuing_subword_prefix") ?? "");
        MergeList list = new(file, merges.Field, _vocabulary.Index, merges.Element.ValueKind == JsonValueKind.Array ? merges.Element.GetArrayLength() : 0, prefix);
        foreach (JsonValue merge in merges.Items())
        {
            if (merge.Element.ValueKind == JsonValueKind.String)
            {
                list.Add(Encoding.UTF8.GetBytes(merge.Text()));
            }
            else if (merge.Element.ValueKind == JsonValueKind.Array && merge.Element.GetArrayLength() == 2)
            {
                JsonValue[] pair = [.. merge.Items()];
                list.Add(Encoding.UTF8.GetBytes(pair[0].Text()), Encoding.UTF8.GetBytes(pair[1].Text()));
            }
            else
            {
                throw merge.Malformed("is no merge: neither 'left right' nor a pair");
            }
        }

        return list;
    }

    private MergeList ReadMergeLines(byte[] lines, string path)
    {
        MergeList list = new(path, "", _vocabulary.Index, Math.Min(lines.AsSpan().Count((byte)'\n') + 1, TokenizerData.MostTokens));
        bool first = true;
        foreach (Range line in lines.AsSpan().Split((byte)'\n'))
        {
            ReadOnlySpan<byte> text = lines.AsSpan()[line].TrimEnd((byte)'\r');
            if (!text.IsEmpty && !(first && text.StartsWith("#version"u8)))
            {
                if (list.Count == TokenizerData.MostTokens)
                {
                    throw new ModelFormatException(path, "", $"has more than {TokenizerData.MostTokens:N0} merges");
                }

                list.Add(text);
            }

            first = false;
        }

        return list;
    }

    private PipelineTokenizer Assemble(string type, JsonValue? model, MergeList? merges)
    {
        TextNormalizer? normalizer = _parts.Normalizer(top.Get("normalizer"));
        List<PreTokenizerStep> steps = [];
        List<string?> expressions = [];
        _parts.Steps(top.Get("pre_tokenizer"), steps, expressions);
        TokenPieces pieces = new();
        HuggingFaceDecoder.Read(top.Get("decoder"), pieces);
        bool ignoresMerges = model?.Boolean("ignore_merges") ?? false;
        bool byteFallback = model?.Boolean("byte_fallback") ?? false;
        ByteStringIndex index = _vocabulary.Index;
        int? unknown = Unknown(type, model);
        bool marks = index.Find(SentencePieceTokenizer.SpaceMark) >= 0;
        if (byteFallback)
        {
            MarkBytes();
        }

        bool byteLevel = type == "BPE" && IsByteLevel(model, steps, index);
        string name = type switch
        {
            "Unigram" => "t5",
            "WordPiece" => "bert",
            "WordLevel" => "wordlevel",
            _ => byteLevel || steps.OfType<ByteLevelStep>().Any() ? "gpt2" : marks ? "llama" : "bpe",
        };
        bool prefixSpace = byteLevel && steps is [ByteLevelStep { PrefixSpace: true }];
        bool addsSpace = prefixSpace || steps is [.., MetaspaceStep { Prepends: true }] || type == "WordPiece" || AddsMark(normalizer);
        TokenizerData data = MakeData(name, unknown, merges, name == "gpt2" && !steps.OfType<ByteLevelStep>().Any(s => s.PrefixSpace) ? PreTokenizerNames.Find(expressions, ignoresMerges) : null, addsSpace);
        Func<BytePairEncoder>? bytes = byteLevel ? ByteLevel(data, steps, merges!, ignoresMerges) : null;
        Func<WordEncoder>? words = byteLevel ? null : Words(type, model, data, merges, byteFallback);
        return new PipelineTokenizer(data, new TokenizerPipeline
        {
            Model = name,
            Normalizer = normalizer,
            Steps = byteLevel ? [] : steps,
            Bytes = bytes,
            Words = words,
            PrefixSpace = prefixSpace,
            AddsSpacePrefix = addsSpace,
            Pieces = pieces.Build(data),
            NormalizedAdded = NormalizedAdded(normalizer),
        });
    }

    // Llama 2's way: a normalizer that puts a mark in front of any text.
    private static bool AddsMark(TextNormalizer? normalizer) => normalizer is not null && normalizer.Apply("x"u8).AsSpan().StartsWith(SentencePieceTokenizer.SpaceMark);

    private static bool IsByteLevel(JsonValue? model, List<PreTokenizerStep> steps, ByteStringIndex index)
    {
        if (model?.Text("continuing_subword_prefix") is { Length: > 0 } || model?.Text("end_of_word_suffix") is { Length: > 0 } || steps is not [.., ByteLevelStep last]
            || (last.PrefixSpace && steps.Count > 1) || !steps.SkipLast(1).All(s => s is SplitStep { Isolates: not null }))
        {
            return false;
        }

        for (int value = 0; value < 256; value++)
        {
            if (index.Find(Encoding.UTF8.GetBytes(ByteAlphabet.CharacterOf((byte)value).ToString())) < 0)
            {
                return false;
            }
        }

        return true;
    }

    private static Func<BytePairEncoder> ByteLevel(TokenizerData data, List<PreTokenizerStep> steps, MergeList merges, bool ignoresMerges)
    {
        List<WordRule> rules = [.. steps.OfType<SplitStep>().Select(s => s.Isolates!)];
        if (((ByteLevelStep)steps[^1]).UseExpression)
        {
            rules.Add(WordRules.Find(RegexTexts.Gpt2)!);
        }

        PreTokenizer preTokenizer = new(rules);
        ByteStrings.Builder words = new(data.Count);
        List<byte> decoded = [];
        for (int id = 0; id < data.Count; id++)
        {
            ByteAlphabet.Decode(data.Texts[id], decoded);
            words.Add(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(decoded));
        }

        BytePairVocabulary vocabulary = new(data, words.Build(), MergeTable.Create(merges, lastCounts: true), ignoresMerges);
        return () => new BytePairEncoder(preTokenizer, vocabulary);
    }

    private Func<WordEncoder> Words(string type, JsonValue? model, TokenizerData data, MergeList? merges, bool byteFallback)
    {
        ByteStringIndex index = data.Index;
        int unknown = data.UnknownId ?? -1;
        int[]? bytes = byteFallback ? GgufPipelines.ByteTokens(index) : null;
        switch (type)
        {
            case "BPE":
                CharacterPairVocabulary vocabulary = new(index, MergeTable.Create(merges!, lastCounts: true))
                {
                    Unknown = unknown,
                    FuseUnknown = model?.Boolean("fuse_unk") ?? false,
                    ByteTokens = bytes,
                    IgnoresMerges = model?.Boolean("ignore_merges") ?? false,
                    ContinuingPrefix = Encoding.UTF8.GetBytes(model?.Text("continuing_subword_prefix") ?? ""),
                    WordSuffix = Encoding.UTF8.GetBytes(model?.Text("end_of_word_suffix") ?? ""),
                    WordsAreApart = WordsAreApart(data, model),
                };
                return () => new CharacterPairEncoder(vocabulary);
            case "Unigram":
                double[] scores = new double[data.Count];
                _vocabulary.Scores!.CopyTo(scores);
                int count = _vocabulary.Scores!.Count;
                // The library keeps the last of equal texts, and costs an unknown character ten more than the least likely piece.
                UnigramVocabulary unigram = new(new PrefixTrie(data.Texts, Enumerable.Range(0, count)), index, scores, scores.Take(count).Min() - 10, unknown,
                    bytes is null || bytes.Contains(-1) ? null : bytes);
                return () => new UnigramEncoder(unigram);
            case "WordPiece":
                WordPieceOptions options = new(index, [], Encoding.UTF8.GetBytes(model?.Text("continuing_subword_prefix") ?? "##"), unknown,
                    (int)(model?.Integer("max_input_chars_per_word", 0, int.MaxValue) ?? 100));
                return () => new WordPieceEncoder(options);
            default:
                return () => new WordLevelEncoder(index, unknown);
        }
    }

    // As for GGUF's SentencePiece: where no token goes over a mark, words are encoded and remembered one by one.
    private static bool WordsAreApart(TokenizerData data, JsonValue? model)
    {
        if (data.Index.Find(SentencePieceTokenizer.SpaceMark) < 0 || model?.Text("end_of_word_suffix") is { Length: > 0 } || model?.Text("continuing_subword_prefix") is { Length: > 0 })
        {
            return false;
        }

        for (int id = 0; id < data.Count; id++)
        {
            if (data.Kinds[id] is TokenKind.Normal && SentencePieceTokenizer.EndOfWord(data.Texts[id]) < data.Texts[id].Length)
            {
                return false;
            }
        }

        return true;
    }

    private int? Unknown(string type, JsonValue? model)
    {
        if (type == "Unigram")
        {
            return model is { } m && m.Integer("unk_id", 0, _vocabulary.Scores!.Count - 1) is long id ? (int)id : null;
        }

        string? text = model?.Text("unk_token") ?? (model is null || type != "BPE" ? folder.TokenText("unk_token") : null) ?? (type == "WordPiece" ? "[UNK]" : null);
        return text is null ? null : Find(text);
    }

    private int? Find(string? text)
    {
        int id = text is null ? -1 : _vocabulary.Index.Find(Encoding.UTF8.GetBytes(text));
        return id < 0 ? null : id;
    }

    private void MarkBytes()
    {
        for (int id = 0; id < _vocabulary.Kinds.Length; id++)
        {
            if (_vocabulary.Kinds[id] == TokenKind.Normal && TokenPieces.ByteOf(_vocabulary.Texts[id]) >= 0)
            {
                _vocabulary.Kinds[id] = TokenKind.Byte;
            }
        }
    }

    private TokenizerData MakeData(string model, int? unknown, MergeList? merges, string? preTokenizer, bool addsSpace)
    {
        int count = _vocabulary.Kinds.Length;
        List<int> ends = folder.Ids("eos_token_id", count);
        List<int> begins = folder.Ids("bos_token_id", count);
        int? bos = Find(folder.TokenText("bos_token")) ?? Find(folder.TokenText("cls_token")) ?? (folder.HasSpecials ? null : begins.Count > 0 ? begins[0] : null);
        int? eos = Find(folder.TokenText("eos_token")) ?? Find(folder.TokenText("sep_token")) ?? (ends.Count > 0 ? ends[0] : null);
        (List<int> prefix, List<int> suffix) = HuggingFaceDecoder.ReadPostProcessor(top.Get("post_processor"), count);
        if (model == "bert" && top.Get("post_processor") is null && top.Get("model") is null)
        {
            prefix = bos is int cls ? [cls] : [];
            suffix = eos is int sep ? [sep] : [];
        }

        // A tokenizer.json that stands alone tells by its template.
        bos ??= !folder.HasSpecials && prefix.Count > 0 ? prefix[0] : null;
        eos ??= !folder.HasSpecials && suffix.Count > 0 ? suffix[^1] : null;
        Override(prefix, bos, folder.Flag("add_bos_token"), front: true);
        Override(suffix, eos, folder.Flag("add_eos_token"), front: false);
        if (unknown is int u && _vocabulary.Kinds[u] == TokenKind.Control && u != bos && u != eos && model != "gpt2")
        {
            _vocabulary.Kinds[u] = TokenKind.Unknown;
        }

        bool[] endsGeneration = TokenizerData.EndsOf(count, _vocabulary.Index, [.. ends.Select(e => (int?)e), Find(folder.TokenText("eos_token"))]);
        return new TokenizerData
        {
            File = file,
            Model = model,
            Texts = _vocabulary.Texts,
            Index = _vocabulary.Index,
            Kinds = _vocabulary.Kinds,
            Scores = _vocabulary.Scores is { } scores ? [.. scores.Select(s => (float)s), .. new float[count - scores.Count]] : null,
            Merges = merges,
            PreTokenizer = preTokenizer,
            IgnoresMerges = top.Get("model")?.Boolean("ignore_merges") ?? false,
            ComposesFirst = top.Get("normalizer")?.Text("type") == "NFC",
            CharsMap = _parts.CharsMap,
            Lowercase = _parts.Bert.Lowercase,
            StripsAccents = _parts.Bert.StripsAccents,
            ContinuingPrefix = model == "bert" ? top.Get("model")?.Text("continuing_subword_prefix") ?? "##" : null,
            RemovesExtraSpaces = model == "t5",
            AddsSpacePrefix = addsSpace,
            TokenizerJson = top.Get("model") is null ? null : file,
            BosId = bos,
            EosId = eos,
            UnknownId = unknown,
            PadId = Find(folder.TokenText("pad_token")),
            AddsBos = bos is int b && prefix.Contains(b),
            AddsEos = eos is int e && suffix.Contains(e),
            Prefix = [.. prefix],
            Suffix = [.. suffix],
            AddedOptions = _vocabulary.Options,
            EndsGeneration = endsGeneration,
        };
    }

    // The flags of tokenizer_config.json stand above what tokenizer.json puts around a text.
    private static void Override(List<int> ids, int? token, bool? flag, bool front)
    {
        if (token is not int id || flag is not bool wanted || ids.Contains(id) == wanted)
        {
            return;
        }

        if (wanted)
        {
            ids.Insert(front ? 0 : ids.Count, id);
        }
        else
        {
            ids.RemoveAll(i => i == id);
        }
    }

    private (ByteStrings Texts, int[] Ids)? NormalizedAdded(TextNormalizer? normalizer)
    {
        if (_vocabulary.Normalized.Count == 0)
        {
            return null;
        }

        ByteStrings.Builder texts = new(_vocabulary.Normalized.Count);
        foreach (int id in _vocabulary.Normalized)
        {
            texts.Add(normalizer is null ? _vocabulary.Texts[id] : normalizer.Apply(_vocabulary.Texts[id]));
        }

        return (texts.Build(), [.. _vocabulary.Normalized]);
    }
}
