namespace Sluice.Conversion;

/// <summary>Matrices that some families' files hold as one, under GGUF's names.</summary>
internal static class FusedNames
{
    private static readonly (string Fused, string[] Parts)[] All = [("attn_qkv", ["attn_q", "attn_k", "attn_v"]), ("ffn_up", ["ffn_gate", "ffn_up"])];

    /// <summary>The tensor that a tensor becomes a part of, and all of its parts from top to bottom; null for one that stays by itself.</summary>
    public static (string Name, string[] Parts)? Of(string name)
    {
        foreach ((string fused, string[] parts) in All)
        {
            string? part = Array.Find(parts, p => name.Contains($".{p}.", StringComparison.Ordinal));
            if (part is not null)
            {
                string With(string stem) => name.Replace($".{part}.", $".{stem}.", StringComparison.Ordinal);
                return (With(fused), Array.ConvertAll(parts, With));
            }
        }

        return null;
    }
}
