using System.Globalization;
using System.Text;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Writes a tokenizer into another kind of file than the one it came from.</summary>
internal static class TokenizerWriter
{
    /// <summary>Adds the keys <c>tokenizer.ggml.*</c> to a GGUF file.</summary>
    /// <param name="tokenizer">The tokenizer.</param>
    /// <param name="vocabularySize">Rows of the model's embedding: ids that the tokenizer does not have become unused tokens.</param>
    /// <param name="writer">The file.</param>
    /// <exception cref="UnsupportedModelException">GGUF has no such kind of vocabulary or pre-tokenizer, or the model has fewer rows than there are tokens.</exception>
    public static void WriteGguf(Tokenizer tokenizer, int vocabularySize, GgufWriter writer) => WriteGguf(tokenizer.Data, writer, vocabularySize);

    /// <inheritdoc cref="WriteGguf(Tokenizer, int, GgufWriter)"/>
    /// <remarks>
    /// SentencePiece BPE without scores gets them from its merges: the earlier a token is first made, the higher. That is the same order
    /// where the merges were made from scores, as they are for Llama 2 and its like.
    /// </remarks>
    public static void WriteGguf(TokenizerData data, GgufWriter writer, int vocabularySize = 0)
    {
        int count = Math.Max(data.Count, vocabularySize);
        if (vocabularySize > 0 && vocabularySize < data.Count)
        {
            throw new UnsupportedModelException(data.File, "vocabulary", $"has {data.Count:N0} tokens, and the model has {vocabularySize:N0} rows");
        }

        if (data.Model is not ("gpt2" or "llama" or "t5" or "bert" or "gemma4"))
        {
            throw new UnsupportedModelException(data.File, "model", $"is of a kind ('{data.Model}') that GGUF does not have");
        }

        writer.AddMetadata("tokenizer.ggml.model", GgufValue.Of(data.Model));
        if (data.Model == "gpt2")
        {
            writer.AddMetadata("tokenizer.ggml.pre", GgufValue.Of(data.PreTokenizer
                ?? throw new UnsupportedModelException(data.File, "pre_tokenizer", "has expressions for which GGUF has no name")));
        }

        if (data.ComposesFirst)
        {
            writer.AddMetadata(TokenizerData.ComposesKey, GgufValue.Of(true));
        }

        string[] texts = new string[count];
        int[] kinds = new int[count];
        for (int id = 0; id < count; id++)
        {
            bool known = id < data.Count && !data.Texts[id].IsEmpty;
            texts[id] = known ? GgufText(data, id) : string.Create(CultureInfo.InvariantCulture, $"[PAD{id}]");
            kinds[id] = (int)(id < data.Count && known ? data.Kinds[id] : TokenKind.Unused);
        }

        writer.AddMetadata("tokenizer.ggml.tokens", GgufValue.OfArray(texts));
        if (data.Model is "llama" or "t5")
        {
            float[] scores = new float[count];
            (data.Scores ?? ScoresOf(data)).CopyTo(scores, 0);
            writer.AddMetadata("tokenizer.ggml.scores", GgufValue.OfArray(scores));
        }

        writer.AddMetadata("tokenizer.ggml.token_type", GgufValue.OfArray(kinds));
        if (data.Model is "gpt2" or "gemma4" && data.Merges is { } merges)
        {
            List<string> lines = new(merges.Count);
            for (int i = 0; i < merges.Count; i++)
            {
                lines.Add($"{Text(data, merges.Left[i])} {Text(data, merges.Right[i])}");
            }

            writer.AddMetadata("tokenizer.ggml.merges", GgufValue.OfArray(lines));
        }

        WriteIds(data, writer);
    }

    /// <summary>The tokenizer as Hugging Face's tokenizer.json: the file it came from, or one that gives the same ids.</summary>
    /// <exception cref="UnsupportedModelException">A token is not valid UTF-8.</exception>
    public static byte[] ToTokenizerJson(Tokenizer tokenizer) => ToTokenizerJson(tokenizer.Data);

    /// <inheritdoc cref="ToTokenizerJson(Tokenizer)"/>
    public static byte[] ToTokenizerJson(TokenizerData data)
    {
        if (data.TokenizerJson is { } path)
        {
            using FileSource source = FileSource.Open(path, memoryMap: false);
            byte[] bytes = new byte[source.Length];
            source.Read(0, bytes);
            return bytes;
        }

        return new TokenizerJsonWriter(data).Write();
    }

    private static void WriteIds(TokenizerData data, GgufWriter writer)
    {
        void Id(string name, int? id)
        {
            if (id is int known)
            {
                writer.AddMetadata($"tokenizer.ggml.{name}_token_id", GgufValue.Of((uint)known));
            }
        }

        Id("bos", data.BosId);
        Id("eos", data.EosId);
        Id("eot", data.EotId);
        Id("unknown", data.UnknownId);
        Id("padding", data.PadId);
        if (data.Model == "bert")
        {
            Id("seperator", data.EosId);
            Id("cls", data.BosId);
        }

        bool bos = data.Prefix is { } prefix ? data.BosId is int b && prefix.Contains(b) : data.AddsBos ?? PreTokenizer.Find(data.PreTokenizer ?? "")?.AddsBos ?? data.Model is "llama" or "gemma4" or "bert";
        writer.AddMetadata("tokenizer.ggml.add_bos_token", GgufValue.Of(bos));
        writer.AddMetadata("tokenizer.ggml.add_eos_token", GgufValue.Of(data.Suffix is { } suffix && data.Model != "bert" ? data.EosId is int e && suffix.Contains(e) : data.AddsEos));
        if (data.Model is "llama" or "t5")
        {
            writer.AddMetadata("tokenizer.ggml.add_space_prefix", GgufValue.Of(data.AddsSpacePrefix ?? data.Model == "llama"));
        }

        if (data.Model == "t5")
        {
            writer.AddMetadata("tokenizer.ggml.remove_extra_whitespaces", GgufValue.Of(data.RemovesExtraSpaces));
            if (data.CharsMap is { } map)
            {
                writer.AddMetadata("tokenizer.ggml.precompiled_charsmap", new GgufValue(GgufValueType.Array, GgufValueType.UInt8, map.Length, map));
            }
        }

        if (data.Model == "bert")
        {
            writer.AddMetadata("tokenizer.ggml.normalizer.lowercase", GgufValue.Of(data.Lowercase));
            writer.AddMetadata("tokenizer.ggml.normalizer.strip_accents", GgufValue.Of(data.StripsAccents));
        }
    }

    private static string Text(TokenizerData data, int id) => Encoding.UTF8.GetString(data.Texts[id]);

    // GGUF marks WordPiece's pieces that begin a word, where others mark those that continue one.
    private static string GgufText(TokenizerData data, int id)
    {
        string text = Text(data, id);
        if (data.Model != "bert" || data.ContinuingPrefix is not { } prefix || data.Kinds[id] != TokenKind.Normal)
        {
            return text;
        }

        return prefix.Length > 0 && text.StartsWith(prefix, StringComparison.Ordinal) ? text[prefix.Length..] : "\u2581" + text;
    }

    private static float[] ScoresOf(TokenizerData data)
    {
        float[] scores = new float[data.Count];
        MergeList? merges = data.Merges;
        float least = -(merges?.Count ?? 0) - 1f;
        Array.Fill(scores, least);
        int place = 0;
        for (int i = 0; i < merges?.Count; i++)
        {
            ref float score = ref scores[merges.Result[i]];
            score = score == least ? -++place : score;
        }

        for (int id = 0; id < scores.Length; id++)
        {
            scores[id] = data.Kinds[id] == TokenKind.Normal ? scores[id] : 0;
        }

        return scores;
    }
}
