using System.Globalization;

namespace Sluice.Perf.Table;

internal enum AttentionKind
{
    Decode,
    Skewed,
    Even,
    Append,
    Cascade,
    Flat,
}

/// <summary>
/// Where in the table a case of attention stands, from the name that tests/Kernels/AttentionTimed.cs gave it. Heads are Hq/Hkv/D. Keys are those of a sequence; of all
/// of them together where they differ; those before an append. Prefix has the keys of each level, + between.
/// </summary>
internal sealed record AttentionCell(AttentionKind Kind, string Heads, int Batch = 1, int Keys = 0, int Queries = 1, int Page = 16, string DType = "F16", string Prefix = "", int Suffix = 0)
{
    /// <summary>Decode's plain case: pages of 16, keys in 16 bits, a query a sequence.</summary>
    public bool IsPlain => Kind == AttentionKind.Decode && Queries == 1 && Page == 16 && DType == "F16";

    /// <summary>What a case is to be compared with, or null.</summary>
    public AttentionCell? Base => Kind switch
    {
        AttentionKind.Decode when !IsPlain => this with { Queries = 1, Page = 16, DType = "F16" },
        AttentionKind.Skewed => this with { Kind = AttentionKind.Even },
        AttentionKind.Cascade => this with { Kind = AttentionKind.Flat },
        _ => null,
    };

    /// <summary>Null for what is no such case.</summary>
    public static AttentionCell? Parse(string name)
    {
        string[] words = name.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        AttentionKind? kind = words is [var op, var first, ..]
            ? (op, first) switch
            {
                ("paged_attention", "decode") => AttentionKind.Decode,
                ("paged_attention", "skewed") => AttentionKind.Skewed,
                ("paged_attention", "even") => AttentionKind.Even,
                ("paged_attention", "append") => AttentionKind.Append,
                ("paged_attention", "flat") => AttentionKind.Flat,
                ("cascade_attention", _) => AttentionKind.Cascade,
                _ => null,
            }
            : null;
        if (kind is not { } known)
        {
            return null;
        }

        AttentionCell cell = new(known, "");
        for (int i = known == AttentionKind.Cascade ? 1 : 2; i < words.Length; i++)
        {
            string word = words[i], next = i + 1 < words.Length ? words[i + 1] : "";
            bool counts = int.TryParse(next, NumberStyles.None, CultureInfo.InvariantCulture, out int count);
            AttentionCell? read = word switch
            {
                "bs" when counts => cell with { Batch = count },
                "kv" or "keys" or "on" when counts => cell with { Keys = count },
                "q" when counts => cell with { Queries = count },
                "page" when counts => cell with { Page = count },
                "suffix" when counts => cell with { Suffix = count },
                "prefix" when next.Length > 0 => cell with { Prefix = next },
                _ => null,
            };
            if (read is not null)
            {
                i++;
            }
            else if (word.Count(c => c == '/') == 2)
            {
                read = cell with { Heads = word };
            }
            else if (known == AttentionKind.Append && int.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out int queries))
            {
                read = cell with { Queries = queries };
            }
            else if (word is "FP8E4M3" or "I8")
            {
                read = cell with { DType = word };
            }

            if (read is null)
            {
                return null;
            }

            cell = read;
        }

        return cell.Heads.Length > 0 ? cell : null;
    }
}
