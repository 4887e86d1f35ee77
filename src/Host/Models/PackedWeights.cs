using System.Globalization;
using Sluice.Interop;
using Sluice.Loading;

namespace Sluice.Models;

/// <summary>How a folder's 4-bit matrices are packed (GPTQ: Frantar et al. 2022; AWQ: Lin et al. 2023), and how they are put together from their tensors.</summary>
internal sealed class PackedWeights
{
    private readonly WeightEncoding _encoding;
    private readonly int _group; // -1: the whole row

    private PackedWeights(WeightEncoding encoding, int group) => (_encoding, _group) = (encoding, group);

    private bool IsAwq => _encoding == WeightEncoding.AWQ4;

    /// <summary>Reads <c>quantization_config</c> (or the packers' own file beside it); null where matrices are not packed.</summary>
    /// <exception cref="UnsupportedModelException">They are packed in a way that is not supported.</exception>
    /// <exception cref="ModelFormatException">A setting is missing or out of bounds.</exception>
    public static PackedWeights? Read(string folder, JsonValue config)
    {
        string older = Path.Combine(folder, "quantize_config.json");
        JsonValue? found = config.Get("quantization_config") ?? (File.Exists(older) ? JsonValue.ReadFile(older) : null);
        if (found is not { } settings)
        {
            return null;
        }

        string method = settings.Text("quant_method") ?? (settings.Get("desc_act") is not null ? "gptq" : "");
        if (method is not ("gptq" or "awq"))
        {
            throw settings.Unsupported($"its quant_method is '{method}'; supported are gptq and awq in 4 bits");
        }

        JsonValue bits = settings.Get("bits") ?? settings.Get("w_bit") ?? settings.Require("bits");
        if (bits.Integer(1, 64) is not 4 and long other)
        {
            throw bits.Unsupported($"is {other:N0}, and 4 is supported");
        }

        JsonValue group = settings.Get("group_size") ?? settings.Get("q_group_size") ?? settings.Require("group_size");
        int size = (int)group.Integer(-1, 1 << 20);
        if (size == 0)
        {
            throw group.Malformed("is 0, and must be -1 (the whole row) or above 0");
        }

        string form = settings.Text(method == "awq" ? "version" : "checkpoint_format")?.ToLowerInvariant() ?? (method == "awq" ? "gemm" : "gptq");
        WeightEncoding encoding = (method, form) switch
        {
            ("gptq", "gptq") => WeightEncoding.GPTQ4,
            ("gptq", "gptq_v2") => WeightEncoding.GPTQ4V2,
            ("awq", "gemm") => WeightEncoding.AWQ4,
            _ => throw settings.Unsupported($"its {(method == "awq" ? "version" : "checkpoint_format")} is '{form}'; supported are gptq, gptq_v2 and gemm"),
        };
        return new PackedWeights(encoding, size);
    }

    public override string ToString() => string.Create(CultureInfo.InvariantCulture, $"{(IsAwq ? "AWQ" : "GPTQ")} 4-bit, {(_group < 0 ? "a scale a row" : $"groups of {_group}")}");

    /// <summary>The matrix whose plain name would be <paramref name="name"/>, or null where its parts are not there.</summary>
    public ModelTensor? Find(string name, Func<string, (SafetensorsFile File, SafetensorsTensor Tensor)?> find)
    {
        const string Suffix = ".weight";
        if (!name.EndsWith(Suffix, StringComparison.Ordinal) || find(name[..^Suffix.Length] + ".qweight") is not { } data)
        {
            return null;
        }

        string stem = name[..^Suffix.Length];
        (SafetensorsFile File, SafetensorsTensor Tensor) zeros = Require(stem + ".qzeros"), scales = Require(stem + ".scales");
        (SafetensorsFile File, SafetensorsTensor Tensor)? order = IsAwq ? null : find(stem + ".g_idx");

        // GPTQ packs eight inputs into a number, AWQ eight outputs.
        Expect(data, "I32", 2);
        long inputs = checked(data.Tensor.Shape[0] * (IsAwq ? 1 : 8)), outputs = checked(data.Tensor.Shape[1] * (IsAwq ? 8 : 1));
        long group = _group < 0 ? inputs : _group;
        if (inputs % group != 0 || outputs % 8 != 0)
        {
            throw new UnsupportedModelException(data.File.Path, $"tensor '{data.Tensor.Name}'", $"{inputs:N0} inputs are no multiple of the group of {group:N0}, or {outputs:N0} outputs none of 8");
        }

        Expect(scales, "F16", 2, inputs / group, outputs);
        Expect(zeros, "I32", 2, inputs / group, outputs / 8);
        if (order is { } o)
        {
            Expect(o, "I32", 1, inputs);
        }

        return new ModelTensor
        {
            Name = data.Tensor.Name,
            Encoding = _encoding,
            Rank = 2,
            Rows = outputs,
            AllRows = outputs,
            Columns = inputs,
            Group = (int)group,
            Data = data.File.Span(data.Tensor),
            Scales = scales.File.Span(scales.Tensor),
            Zeros = zeros.File.Span(zeros.Tensor),
            Order = order?.File.Span(order.Value.Tensor),
            Parts = order is null ? [data.Tensor.Name, zeros.Tensor.Name, scales.Tensor.Name] : [data.Tensor.Name, zeros.Tensor.Name, scales.Tensor.Name, order.Value.Tensor.Name],
        };

        (SafetensorsFile, SafetensorsTensor) Require(string part) => find(part)
            ?? throw new ModelFormatException(data.File.Path, $"tensor '{part}'", $"is missing, and '{data.Tensor.Name}' needs it");
    }

    private static void Expect((SafetensorsFile File, SafetensorsTensor Tensor) part, string dtype, int rank, params ReadOnlySpan<long> shape)
    {
        SafetensorsTensor t = part.Tensor;
        if (t.DType != dtype || t.Shape.Length != rank || (!shape.IsEmpty && !t.Shape.AsSpan().SequenceEqual(shape)))
        {
            string wanted = shape.IsEmpty ? $"a matrix of {dtype}" : $"{GgufTensor.ShapeText(shape)} {dtype}";
            throw new ModelFormatException(part.File.Path, $"tensor '{t.Name}'", $"is {t.ShapeText} {t.DType}, and {wanted} is expected");
        }
    }
}
