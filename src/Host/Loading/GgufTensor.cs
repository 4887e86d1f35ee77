using System.Collections.Immutable;

namespace Sluice.Loading;

/// <summary>A tensor of a GGUF file: its name, shape, type and place. All numbers have been checked against the file.</summary>
/// <param name="Name">The name, unique in its file.</param>
/// <param name="Type">How the values are stored.</param>
/// <param name="Dimensions">One to four sizes, all positive, the contiguous dimension first (GGUF's order): a matrix of R rows and C columns is [C, R].</param>
/// <param name="Offset">Byte offset from the start of the file.</param>
/// <param name="ByteLength">Bytes of the values.</param>
public sealed record GgufTensor(string Name, TensorType Type, ImmutableArray<long> Dimensions, long Offset, long ByteLength)
{
    /// <summary>Number of values.</summary>
    public long ElementCount
    {
        get
        {
            long count = 1;
            foreach (long size in Dimensions)
            {
                count *= size;
            }

            return count;
        }
    }

    /// <summary>Size of the contiguous dimension: K of a matmul.</summary>
    public long Columns => Dimensions[0];

    /// <summary>Product of all other sizes: N of a matmul.</summary>
    public long Rows => ElementCount / Dimensions[0];

    /// <summary>Bytes of one row.</summary>
    public long RowBytes => ByteLength / Rows;

    /// <summary>The shape in words, the contiguous dimension first: <c>4,096 x 14,336</c>.</summary>
    public string Shape => ShapeText(Dimensions.AsSpan());

    internal static string ShapeText(ReadOnlySpan<long> dimensions)
    {
        string text = "";
        foreach (long size in dimensions)
        {
            text += (text.Length == 0 ? "" : " x ") + size.ToString("N0", System.Globalization.CultureInfo.InvariantCulture);
        }

        return text;
    }
}
