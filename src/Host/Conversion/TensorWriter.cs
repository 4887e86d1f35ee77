using System.Runtime.InteropServices;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;

namespace Sluice.Conversion;

/// <summary>
/// Writes tensors in another type, a piece of rows at a time, and measures what is lost. Values come from the library itself: a row of a stored
/// matrix is an embedding, so every encoding that it computes with can be converted, and the new bytes are read back by it too.
/// </summary>
internal sealed class TensorWriter(ComputeStream stream, IReadOnlyCollection<OutputTensor> plan, Action<ReadOnlySpan<byte>> write, IProgress<ByteProgress>? progress, CancellationToken cancellation)
{
    private const int PieceValues = 1 << 22;

    private readonly Dictionary<string, int> _types = new(StringComparer.Ordinal);
    private readonly long _total = plan.Sum(t => t.Rows * t.Columns) * sizeof(float);
    private long _done;
    private long _bytes;
    private double _squares;
    private double _lost;
    private double _largest;
    private string _largestAt = "";

    public ConversionReport Report() => new(_types, _bytes, _squares > 0 ? Math.Sqrt(_lost / _squares) : 0, _largest, _largestAt);

    public void Write(OutputTensor tensor)
    {
        foreach (ModelTensor source in tensor.Sources)
        {
            if (tensor.IsVector)
            {
                WriteVector(tensor, source);
            }
            else
            {
                WriteMatrix(tensor, source);
            }
        }

        string type = TensorTypes.Name(tensor.Type);
        _types[type] = _types.GetValueOrDefault(type) + 1;
    }

    private void WriteVector(OutputTensor tensor, ModelTensor source)
    {
        cancellation.ThrowIfCancellationRequested();
        float[] values = source.ReadFloats();
        float[] ordered = [.. Enumerable.Range(0, values.Length).Select(i => values[tensor.RowOf?.Invoke(i) ?? i] + tensor.Plus)];
        byte[] bytes = new byte[TensorTypes.Bytes(tensor.Type, ordered.Length)];
        Quantizer.Quantize(tensor.Type, ordered, bytes);
        Emit(bytes, ordered.Length);
    }

    private void WriteMatrix(OutputTensor tensor, ModelTensor source)
    {
        using Weight weight = source.ToDevice(stream, cancellation);
        int columns = (int)source.Columns;
        int most = (int)Math.Clamp(PieceValues / columns, 1, source.Rows);
        Tensor ids = stream.CreateTensor(DType.I32, most), read = stream.CreateTensor(DType.F32, most, columns);
        try
        {
            float[] values = new float[(long)most * columns], back = new float[values.Length];
            byte[] bytes = new byte[TensorTypes.Bytes(tensor.Type, values.Length)];
            WeightEncoding encoding = GgufModel.EncodingOf(tensor.Type)!.Value;
            for (int row = 0; row < source.Rows; row += most)
            {
                cancellation.ThrowIfCancellationRequested();
                int rows = (int)Math.Min(most, source.Rows - row), count = rows * columns;
                stream.Upload<int>(ids.Rows(0, rows), [.. Enumerable.Range(row, rows).Select(r => tensor.RowOf?.Invoke(r) ?? r)]);
                Dequantize(weight, ids.Rows(0, rows), read.Rows(0, rows), values.AsSpan(0, count));
                Span<byte> made = bytes.AsSpan(0, (int)TensorTypes.Bytes(tensor.Type, count));
                if (source.Encoding == encoding && !source.IsGrouped)
                {
                    // The same type: the very bytes, whatever the order of rows.
                    long rowBytes = source.Data.Length / source.Rows;
                    for (int i = 0; i < rows; i++)
                    {
                        int from = tensor.RowOf?.Invoke(row + i) ?? row + i;
                        source.Data.Read(from * rowBytes, made.Slice((int)(i * rowBytes), (int)rowBytes));
                    }
                }
                else
                {
                    Quantizer.Quantize(tensor.Type, values.AsSpan(0, count), made);
                    using Weight again = Weight.Create(stream, new WeightSource { Encoding = encoding, Rows = rows, Cols = columns, Data = made });
                    stream.Upload<int>(ids.Rows(0, rows), [.. Enumerable.Range(0, rows)]);
                    Dequantize(again, ids.Rows(0, rows), read.Rows(0, rows), back.AsSpan(0, count));
                    Measure(tensor.Name, values.AsSpan(0, count), back.AsSpan(0, count));
                }

                Emit(made, count);
            }
        }
        finally
        {
            ids.Buffer!.Dispose();
            read.Buffer!.Dispose();
        }
    }

    private void Dequantize(Weight weight, Tensor ids, Tensor read, Span<float> values)
    {
        stream.Reserve(stream.Measure(() => stream.Embedding(ids, weight, 1, read)));
        stream.Embedding(ids, weight, 1, read);
        stream.Download(read, values);
        stream.Synchronize();
    }

    private void Measure(string name, ReadOnlySpan<float> values, ReadOnlySpan<float> back)
    {
        for (int i = 0; i < values.Length; i++)
        {
            double lost = Math.Abs((double)values[i] - back[i]);
            _squares += (double)values[i] * values[i];
            _lost += lost * lost;
            if (lost > _largest)
            {
                (_largest, _largestAt) = (lost, name);
            }
        }
    }

    private void Emit(ReadOnlySpan<byte> bytes, int values)
    {
        write(bytes);
        _bytes += bytes.Length;
        _done += (long)values * sizeof(float);
        progress?.Report(new ByteProgress(_done, _total));
    }
}
