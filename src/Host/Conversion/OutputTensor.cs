using Sluice.Loading;
using Sluice.Models;

namespace Sluice.Conversion;

/// <summary>A tensor that a conversion writes: the rows of one or several of the model's, in an order of their own.</summary>
internal sealed record OutputTensor
{
    /// <summary>The name in the file to be written.</summary>
    public required string Name { get; init; }

    public required TensorType Type { get; init; }

    /// <summary>What it is made of, one below the other.</summary>
    public required IReadOnlyList<ModelTensor> Sources { get; init; }

    /// <summary>The source's row that becomes row r (of a vector: the value), where the order changes; only with one source.</summary>
    public Func<int, int>? RowOf { get; init; }

    /// <summary>Added to each value of a vector.</summary>
    public float Plus { get; init; }

    public bool IsVector => Sources[0].Rank == 1;

    /// <summary>N; of a vector 1.</summary>
    public long Rows => IsVector ? 1 : Sources.Sum(s => s.Rows);

    /// <summary>K.</summary>
    public long Columns => IsVector ? Sources.Sum(s => s.Columns) : Sources[0].Columns;

    public long Bytes => TensorTypes.Bytes(Type, Rows * Columns);
}

/// <summary>The orders of a head's rows for the two ways in which RoPE pairs them.</summary>
internal static class HeadOrder
{
    /// <summary>
    /// For pairs (2i, 2i + 1), which GGUF's llama has, the row of a matrix made for pairs (i, i + R/2), which Hugging Face has.
    /// <paramref name="headDim"/> is D, of which the first <paramref name="turning"/> turn.
    /// </summary>
    public static Func<int, int> FromHalves(int headDim, int turning) => row =>
    {
        int at = row % headDim;
        return at >= turning ? row : row - at + (at / 2) + (at % 2 * (turning / 2));
    };

    /// <summary>The other way round.</summary>
    public static Func<int, int> FromPairs(int headDim, int turning) => row =>
    {
        int at = row % headDim, half = turning / 2;
        return at >= turning ? row : row - at + (at < half ? at * 2 : ((at - half) * 2) + 1);
    };
}
