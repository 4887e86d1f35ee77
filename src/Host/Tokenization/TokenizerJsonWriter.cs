using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Unicode;

namespace Sluice.Tokenization;

/// <summary>Writes a tokenizer that came from a GGUF file as tokenizer.json.</summary>
internal sealed class TokenizerJsonWriter(TokenizerData data)
{
    /// <summary>The file's bytes.</summary>
    /// <exception cref="UnsupportedModelException">A token is not valid UTF-8.</exception>
    public byte[] Write()
    {
        ArrayBufferWriter<byte> bytes = new();
        using (Utf8JsonWriter json = new(bytes, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            json.WriteString("version", "1.0");
            json.WriteNull("truncation");
            json.WriteNull("padding");
            WriteAdded(json);
            WriteParts(json);
            WritePostProcessor(json);
            json.WriteStartObject("model");
            switch (data.Model)
            {
                case "t5":
                    WriteUnigram(json);
                    break;
                case "bert":
                    WriteWordPiece(json);
                    break;
                default:
                    WritePairs(json);
                    break;
            }

            json.WriteEndObject();
            json.WriteEndObject();
        }

        return bytes.WrittenSpan.ToArray();
    }

    private ReadOnlySpan<byte> Text(int id)
    {
        ReadOnlySpan<byte> text = data.Texts[id];
        return Utf8.IsValid(text) ? text : throw new UnsupportedModelException(data.File, "tokenizer.ggml.tokens", $"token {id:N0} is not valid UTF-8, and JSON cannot hold it");
    }

    private void WriteAdded(Utf8JsonWriter json)
    {
        json.WriteStartArray("added_tokens");
        for (int id = 0; id < data.Count; id++)
        {
            if (data.Kinds[id] is TokenKind.Normal or TokenKind.Byte or TokenKind.Unused || data.Texts[id].IsEmpty)
            {
                continue;
            }

            json.WriteStartObject();
            json.WriteNumber("id", id);
            json.WriteString("content", Text(id));
            json.WriteBoolean("single_word", false);
            json.WriteBoolean("lstrip", false);
            json.WriteBoolean("rstrip", false);
            json.WriteBoolean("normalized", false);
            json.WriteBoolean("special", data.Kinds[id] != TokenKind.UserDefined);
            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    private void WriteParts(Utf8JsonWriter json)
    {
        bool space = data.AddsSpacePrefix ?? data.Model == "llama";
        const string Replace = """{"type":"Replace","pattern":{"String":" "},"content":"▁"}""";
        const string Back = """{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}""";
        (string normalizer, string pre, string decoder) = data.Model switch
        {
            "llama" => (space ? $$$"""{"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{{{Replace}}}]}""" : Replace, "null",
                $$$"""{"type":"Sequence","decoders":[{{{Back}}}{{{(space ? """,{"type":"Strip","content":" ","start":1,"stop":0}""" : "")}}}]}"""),
            "gemma4" => (Replace, "null", $$$"""{"type":"Sequence","decoders":[{{{Back}}}]}"""),
            "t5" => (UnigramNormalizer(), $$"""{"type":"Metaspace","replacement":"▁","prepend_scheme":"{{(space || data.RemovesExtraSpaces ? "always" : "never")}}","split":true}""",
                """{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true}"""),
            "bert" => ($$"""{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":{{(data.StripsAccents ? "true" : "false")}},"lowercase":{{(data.Lowercase ? "true" : "false")}}}""",
                """{"type":"BertPreTokenizer"}""", """{"type":"WordPiece","prefix":"##","cleanup":true}"""),
            _ => (data.ComposesFirst ? """{"type":"NFC"}""" : "null", BytePairSteps(), """{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true}"""),
        };
        Raw(json, "normalizer", normalizer);
        Raw(json, "pre_tokenizer", pre);
        Raw(json, "decoder", decoder);
    }

    private static void Raw(Utf8JsonWriter json, string name, string value)
    {
        json.WritePropertyName(name);
        json.WriteRawValue(value);
    }

    private string BytePairSteps()
    {
        IReadOnlyList<string> expressions = PreTokenizer.ExpressionsOf(data.PreTokenizer ?? "default") ?? [];
        IEnumerable<string> splits = expressions.Select(e => $$$"""{"type":"Split","pattern":{"Regex":"{{{JsonEncodedText.Encode(e, JavaScriptEncoder.UnsafeRelaxedJsonEscaping)}}}"},"behavior":"Isolated","invert":false}""");
        return $$"""{"type":"Sequence","pretokenizers":[{{string.Join(',', splits.Append("""{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}"""))}}]}""";
    }

    private string UnigramNormalizer()
    {
        List<string> parts = [];
        if (data.CharsMap is { } map)
        {
            parts.Add($$"""{"type":"Precompiled","precompiled_charsmap":"{{Convert.ToBase64String(map)}}"}""");
        }

        if (data.RemovesExtraSpaces)
        {
            parts.Add("""{"type":"Strip","strip_left":true,"strip_right":true}""");
            parts.Add("""{"type":"Replace","pattern":{"Regex":" {2,}"},"content":" "}""");
        }

        return parts.Count == 0 ? "null" : $$"""{"type":"Sequence","normalizers":[{{string.Join(',', parts)}}]}""";
    }

    private void WritePostProcessor(Utf8JsonWriter json)
    {
        bool adds = data.AddsBos ?? PreTokenizer.Find(data.PreTokenizer ?? "")?.AddsBos ?? data.Model is "llama" or "gemma4" or "bert";
        int[] prefix = data.Prefix ?? (adds && data.BosId is int bos ? [bos] : []);
        int[] suffix = data.Suffix ?? (data.AddsEos && data.EosId is int eos ? [eos] : []);
        if (prefix.Length + suffix.Length == 0)
        {
            json.WriteNull("post_processor");
            return;
        }

        json.WriteStartObject("post_processor");
        json.WriteString("type", "TemplateProcessing");
        foreach ((string name, int sequences) in new[] { ("single", 1), ("pair", 2) })
        {
            json.WriteStartArray(name);
            for (int sequence = 0; sequence < sequences; sequence++)
            {
                WriteSpecials(json, prefix, sequence);
                json.WriteStartObject();
                json.WriteStartObject("Sequence");
                json.WriteString("id", sequence == 0 ? "A" : "B");
                json.WriteNumber("type_id", sequence);
                json.WriteEndObject();
                json.WriteEndObject();
                WriteSpecials(json, suffix, sequence);
            }

            json.WriteEndArray();
        }

        json.WriteStartObject("special_tokens");
        foreach (int id in prefix.Concat(suffix).Distinct())
        {
            json.WriteStartObject(Text(id));
            json.WriteString("id", Text(id));
            json.WriteStartArray("ids");
            json.WriteNumberValue(id);
            json.WriteEndArray();
            json.WriteStartArray("tokens");
            json.WriteStringValue(Text(id));
            json.WriteEndArray();
            json.WriteEndObject();
        }

        json.WriteEndObject();
        json.WriteEndObject();
    }

    private void WriteSpecials(Utf8JsonWriter json, int[] ids, int sequence)
    {
        foreach (int id in ids)
        {
            json.WriteStartObject();
            json.WriteStartObject("SpecialToken");
            json.WriteString("id", Text(id));
            json.WriteNumber("type_id", sequence);
            json.WriteEndObject();
            json.WriteEndObject();
        }
    }

    private void WriteVocabulary(Utf8JsonWriter json)
    {
        HashSet<int> merged = data.Merges is { } merges ? [.. merges.Left, .. merges.Right, .. merges.Result] : [];
        json.WriteStartObject("vocab");
        for (int id = 0; id < data.Count; id++)
        {
            // Not numbers without a meaning, and not those whose text another has.
            if (!data.Texts[id].IsEmpty && data.Index.Find(data.Texts[id]) == id && (data.Kinds[id] != TokenKind.Unused || merged.Contains(id)))
            {
                json.WriteNumber(WordPieceText(id), id);
            }
        }

        json.WriteEndObject();
    }

    private ReadOnlySpan<byte> WordPieceText(int id)
    {
        ReadOnlySpan<byte> text = Text(id);
        if (data.Model != "bert" || data.ContinuingPrefix is not null || data.Kinds[id] != TokenKind.Normal)
        {
            return text;
        }

        return text.StartsWith(SentencePieceTokenizer.SpaceMark) ? text[SentencePieceTokenizer.SpaceMark.Length..] : (byte[])[.. "##"u8, .. text];
    }

    private void WritePairs(Utf8JsonWriter json)
    {
        bool characters = data.Model is "llama" or "gemma4";
        json.WriteString("type", "BPE");
        json.WriteNull("dropout");
        if (characters && data.UnknownId is int unknown)
        {
            json.WriteString("unk_token", Text(unknown));
        }
        else
        {
            json.WriteNull("unk_token");
        }

        json.WriteNull("continuing_subword_prefix");
        json.WriteNull("end_of_word_suffix");
        json.WriteBoolean("fuse_unk", characters);
        json.WriteBoolean("byte_fallback", characters);
        json.WriteBoolean("ignore_merges", data.IgnoresMerges ?? PreTokenizer.Find(data.PreTokenizer ?? "")?.IgnoresMerges ?? false);
        WriteVocabulary(json);
        json.WriteStartArray("merges");
        if (data.Merges is { } merges)
        {
            for (int i = 0; i < merges.Count; i++)
            {
                WriteMerge(json, Text(merges.Left[i]), Text(merges.Right[i]));
            }
        }
        else
        {
            WriteMergesOfScores(json);
        }

        json.WriteEndArray();
    }

    private static void WriteMerge(Utf8JsonWriter json, ReadOnlySpan<byte> left, ReadOnlySpan<byte> right) => json.WriteStringValue([.. left, (byte)' ', .. right]);

    // Every way to make a token of two, the best score first; equal ones by id.
    private void WriteMergesOfScores(Utf8JsonWriter json)
    {
        float[] scores = data.Scores ?? [];
        int[] order = [.. Enumerable.Range(0, data.Count).Where(id => data.Kinds[id] is TokenKind.Normal or TokenKind.UserDefined)];
        Array.Sort(order, (a, b) => scores[b].CompareTo(scores[a]) is var difference && difference != 0 ? difference : a.CompareTo(b));
        foreach (int id in order)
        {
            ReadOnlySpan<byte> text = Text(id);
            for (int cut = 1; cut < text.Length; cut++)
            {
                if ((text[cut] & 0xC0) != 0x80 && IsPiece(text[..cut]) && IsPiece(text[cut..]))
                {
                    WriteMerge(json, text[..cut], text[cut..]);
                }
            }
        }
    }

    private bool IsPiece(ReadOnlySpan<byte> text) => data.Index.Find(text) is >= 0 and int id && data.Kinds[id] != TokenKind.Unused;

    private void WriteUnigram(Utf8JsonWriter json)
    {
        json.WriteString("type", "Unigram");
        if (data.UnknownId is int unknown)
        {
            json.WriteNumber("unk_id", unknown);
        }
        else
        {
            json.WriteNull("unk_id");
        }

        json.WriteBoolean("byte_fallback", false);
        json.WriteStartArray("vocab");
        for (int id = 0; id < data.Count; id++)
        {
            json.WriteStartArray();
            json.WriteStringValue(Text(id));
            json.WriteNumberValue(data.Kinds[id] == TokenKind.UserDefined ? 0 : data.Scores![id]);
            json.WriteEndArray();
        }

        json.WriteEndArray();
    }

    private void WriteWordPiece(Utf8JsonWriter json)
    {
        json.WriteString("type", "WordPiece");
        json.WriteString("unk_token", data.UnknownId is int unknown ? Text(unknown) : "[UNK]"u8);
        json.WriteString("continuing_subword_prefix", data.ContinuingPrefix ?? "##");
        json.WriteNumber("max_input_chars_per_word", 100);
        WriteVocabulary(json);
    }
}
