using System.Text;
using System.Text.Json;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>Reads a tokenizer.json's decoder and post-processor.</summary>
internal static class HuggingFaceDecoder
{
    private const int MostNested = 16;

    /// <summary>Sets what a decoder does to each token; what it does to whole texts (taking a blank off the front) is left out.</summary>
    /// <exception cref="UnsupportedModelException">It is of a kind that is not known.</exception>
    public static void Read(JsonValue? decoder, TokenPieces pieces, int depth = 0)
    {
        if (decoder is not { } d)
        {
            return;
        }

        if (depth > MostNested || pieces.Replacements.Count > 256)
        {
            throw d.Unsupported("holds too many decoders");
        }

        switch (HuggingFaceParts.TypeOf(d))
        {
            case "Sequence":
                foreach (JsonValue item in d.Require("decoders").Items())
                {
                    Read(item, pieces, depth + 1);
                }

                break;
            case "ByteLevel":
                pieces.ByteLevel = true;
                break;
            case "ByteFallback":
                pieces.ByteFallback = true;
                break;
            case "Replace":
                // A regular expression here would be about whole texts.
                JsonValue pattern = d.Require("pattern");
                string? from = pattern.Element.ValueKind == JsonValueKind.String ? pattern.Text() : pattern.Text("String");
                string to = d.Require("content").Text();
                if (from is { Length: > 0 })
                {
                    pieces.Replacements.Add((Encoding.UTF8.GetBytes(from), Encoding.UTF8.GetBytes(to)));
                }

                break;
            case "Metaspace":
                string mark = d.Get("replacement") is { } replacement ? HuggingFaceParts.OneCharacter(replacement).ToString() : "\u2581";
                pieces.Replacements.Add((Encoding.UTF8.GetBytes(mark), [(byte)' ']));
                break;
            case "WordPiece":
                pieces.ContinuingPrefix = Encoding.UTF8.GetBytes(d.Text("prefix") ?? "##");
                break;
            case "BPEDecoder":
                pieces.WordSuffix = Encoding.UTF8.GetBytes(d.Text("suffix") ?? "</w>");
                break;
            case "CTC":
                pieces.Replacements.Add((Encoding.UTF8.GetBytes(d.Text("word_delimiter_token") is { Length: > 0 } word ? word : "|"), [(byte)' ']));
                break;
            case "Fuse" or "Strip":
                break;
            default:
                throw d.Unsupported($"is of type '{HuggingFaceParts.TypeOf(d)}', and no decoder of that type is known");
        }
    }

    /// <summary>What a post-processor puts before and behind a text.</summary>
    /// <exception cref="UnsupportedModelException">It is of a kind that is not known.</exception>
    public static (List<int> Prefix, List<int> Suffix) ReadPostProcessor(JsonValue? processor, int count, int depth = 0)
    {
        List<int> prefix = [];
        List<int> suffix = [];
        if (processor is not { } p)
        {
            return (prefix, suffix);
        }

        if (depth > MostNested)
        {
            throw p.Unsupported($"nests deeper than {MostNested}");
        }

        switch (HuggingFaceParts.TypeOf(p))
        {
            case "Sequence":
                foreach (JsonValue item in p.Require("processors").Items())
                {
                    // A later one works on what the earlier gave.
                    (List<int> before, List<int> behind) = ReadPostProcessor(item, count, depth + 1);
                    prefix.InsertRange(0, before);
                    suffix.AddRange(behind);
                }

                break;
            case "ByteLevel":
                break;
            case "BertProcessing" or "RobertaProcessing":
                prefix.Add(PairId(p.Require("cls"), count));
                suffix.Add(PairId(p.Require("sep"), count));
                break;
            case "TemplateProcessing":
                ReadTemplate(p, count, prefix, suffix);
                break;
            default:
                throw p.Unsupported($"is of type '{HuggingFaceParts.TypeOf(p)}', and no post-processor of that type is known");
        }

        return (prefix, suffix);
    }

    private static void ReadTemplate(JsonValue template, int count, List<int> prefix, List<int> suffix)
    {
        bool behind = false;
        int items = 0;
        foreach (JsonValue item in template.Require("single").Items())
        {
            if (++items > 1_000)
            {
                throw template.Malformed("puts more than 1,000 tokens around a text");
            }

            if (item.Get("Sequence") is not null)
            {
                behind = true;
                continue;
            }

            string name = item.Require("SpecialToken").Require("id").Text();
            JsonValue token = template.Require("special_tokens").Require(name);
            foreach (JsonValue id in token.Require("ids").Items().Take(1_000))
            {
                (behind ? suffix : prefix).Add((int)id.Integer(0, count - 1));
            }
        }
    }

    private static int PairId(JsonValue pair, int count)
    {
        JsonValue[] parts = [.. pair.Items().Take(3)];
        return parts.Length == 2 ? (int)parts[1].Integer(0, count - 1) : throw pair.Malformed("is no pair of text and id");
    }
}
