using System.Collections.Immutable;
using System.Globalization;
using System.Text.Json;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>
/// Reads the RoPE of a config.json in all its forms: rope_theta and rope_scaling side by side (transformers 4), rope_parameters that hold both,
/// and rope_parameters by kind of layer (transformers 5).
/// </summary>
internal sealed class RopeReader
{
    private readonly JsonValue _json;
    private readonly int _headDim;
    private readonly int _trained;

    public RopeReader(JsonValue json, Architecture family, int headDim, int trained, double? theta)
    {
        (_json, _headDim, _trained) = (json, headDim, trained);
        ContextLength = trained;
        JsonValue? parameters = json.Get("rope_parameters");
        JsonValue? full = parameters?.Get("full_attention");
        JsonValue? scaling = full ?? parameters ?? json.Get("rope_scaling");
        RopeConfig rope = Read(scaling, theta ?? 10_000);
        double own = json.Number("rope_local_base_freq") ?? (family.WindowRopeBase > 0 ? family.WindowRopeBase : 0);
        All = parameters?.Get("sliding_attention") is { } sliding ? [rope, Read(sliding, own > 0 ? own : 10_000)]
            : own > 0 ? [rope, new RopeConfig { Dimensions = rope.Dimensions, Base = Base(own, json) }]
            : [rope];
    }

    /// <summary>The kinds of RoPE: that of all layers, or of those that see all tokens, then that of the others.</summary>
    public ImmutableArray<RopeConfig> All { get; }

    /// <summary>Tokens that the model can see, scalings included.</summary>
    public int ContextLength { get; private set; }

    private RopeConfig Read(JsonValue? scaling, double theta)
    {
        JsonValue s = scaling ?? _json;
        double share = (scaling?.Number("partial_rotary_factor")) ?? _json.Number("partial_rotary_factor") ?? 1;
        int dimensions = share is > 0 and <= 1 ? (int)(_headDim * share) : 0;
        if (dimensions < 2 || dimensions % 2 != 0)
        {
            throw _json.Malformed($"a partial_rotary_factor of {Show(share)} of {_headDim:N0} dimensions turns {dimensions:N0} of them, and an even number from 2 on is expected");
        }

        RopeConfig rope = new()
        {
            Dimensions = dimensions,
            Base = Base((scaling?.Number("rope_theta")) ?? theta, s),
            OriginalContext = _trained,
        };
        string kind = scaling?.Text("rope_type") ?? scaling?.Text("type") ?? "default";
        if (kind == "default")
        {
            return rope;
        }

        int? original = (int?)(s.Integer("original_max_position_embeddings", 1, int.MaxValue) ?? _json.Integer("original_max_position_embeddings", 1, int.MaxValue));
        switch (kind)
        {
            case "linear":
                return rope with { Scaling = RopeScaling.Linear, Factor = Factor(s) };
            case "dynamic":
                double grows = Factor(s);
                Extend(_trained * grows);
                return rope with { Scaling = RopeScaling.Dynamic, Factor = grows };
            case "llama3":
                double low = Positive(s, "low_freq_factor"), high = Positive(s, "high_freq_factor");
                return high <= low
                    ? throw s.Malformed($"its high_freq_factor is {Show(high)}, and must be above its low_freq_factor of {Show(low)}")
                    : rope with { Scaling = RopeScaling.Llama3, Factor = Factor(s), LowFrequencyFactor = low, HighFrequencyFactor = high, OriginalContext = (int)s.Require("original_max_position_embeddings").Integer(1, int.MaxValue) };
            case "yarn":
                return Yarn(rope, s, original ?? _trained);
            case "longrope" or "su":
                return LongRope(rope, s, original ?? _trained);
            default:
                throw s.Unsupported($"its rope_type '{kind}' is not supported; supported are default, linear, dynamic, llama3, yarn and longrope");
        }
    }

    private RopeConfig Yarn(RopeConfig rope, JsonValue s, int original)
    {
        double factor = s.Number("factor") is null ? (double)_trained / original : Factor(s);
        Extend(original * factor);
        double? multiplier = s.Number("mscale"), all = s.Number("mscale_all_dim");
        double attention = s.Number("attention_factor")
            ?? (multiplier is > 0 and { } m && all is > 0 and { } a ? RopeConfig.YarnAttention(factor, m) / RopeConfig.YarnAttention(factor, a) : RopeConfig.YarnAttention(factor));
        return rope with
        {
            Scaling = RopeScaling.Yarn,
            Factor = factor,
            OriginalContext = original,
            BetaFast = Optional(s, "beta_fast", 32),
            BetaSlow = Optional(s, "beta_slow", 1),
            Truncate = s.Boolean("truncate") ?? true,
            AttentionFactor = Attention(attention, s),
        };
    }

    private RopeConfig LongRope(RopeConfig rope, JsonValue s, int original)
    {
        double factor = _trained > original ? (double)_trained / original : s.Number("factor") is null ? 1 : Factor(s);
        Extend(original * factor);
        double attention = s.Number("attention_factor") ?? (factor <= 1 ? 1 : Math.Sqrt(1 + (Math.Log(factor) / Math.Log(original))));
        return rope with
        {
            Scaling = RopeScaling.LongRope,
            Factor = factor,
            OriginalContext = original,
            Divisors = Factors(s.Require("short_factor"), rope.Dimensions / 2),
            LongDivisors = Factors(s.Require("long_factor"), rope.Dimensions / 2),
            AttentionFactor = Attention(attention, s),
        };
    }

    private static float Attention(double factor, JsonValue s) =>
        factor is > 1e-3 and < 1e3 ? (float)factor : throw s.Malformed($"its attention_factor is {Show(factor)}, given or computed from its contexts, and must be above 0.001 and below 1,000");

    private void Extend(double context) => ContextLength = (int)Math.Min(int.MaxValue, Math.Max(ContextLength, context));

    private static float[] Factors(JsonValue list, int count)
    {
        if (list.Element.ValueKind == JsonValueKind.Array && list.Element.GetArrayLength() != count)
        {
            throw list.Malformed($"has {list.Element.GetArrayLength():N0} factors for {count:N0} pairs");
        }

        return [.. list.Items().Select(f => f.Number() is > 1e-6 and < 1e6 and double value ? (float)value : throw f.Malformed("must be above 1e-6 and below 1e6"))];
    }

    private static double Base(double theta, JsonValue at) => theta is >= 1 and < 1e12 ? theta : throw at.Malformed($"its rope_theta is {Show(theta)}, and must be from 1 up to 1e12");

    private static double Factor(JsonValue s) => Positive(s, "factor");

    private static double Optional(JsonValue s, string key, double absent) => s.Get(key) is null ? absent : Positive(s, key);

    private static double Positive(JsonValue s, string key)
    {
        JsonValue value = s.Require(key);
        return value.Number() is > 1e-6 and < 1e6 and double number ? number : throw value.Malformed($"is {Show(value.Number())}, and must be above 1e-6 and below 1e6");
    }

    private static string Show(double value) => value.ToString(CultureInfo.InvariantCulture);
}
