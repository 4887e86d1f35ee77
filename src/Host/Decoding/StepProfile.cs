using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text.Json;
using Sluice.Interop;

namespace Sluice.Decoding;

/// <summary>The time of one kind of op in a decode step.</summary>
/// <param name="Kind">
/// The op's name as in sluice.h (<c>fused_qkv</c>, <c>argmax</c>), but <c>head</c> for the product with the output matrix; <c>copy</c> is that of the step's ids.
/// </param>
/// <param name="Calls">Calls a step.</param>
/// <param name="Microseconds">Of all these calls: each from the end of the call before to its own, the median over the steps.</param>
/// <param name="Percent">Of the sum over all kinds.</param>
/// <param name="WeightBytes">Bytes of weights that the calls read, each weight once a call; of an embedding the step's rows alone. 0: it has none.</param>
public sealed record KindTime(string Kind, int Calls, double Microseconds, double Percent, long WeightBytes)
{
    /// <summary>Gigabytes (10^9 bytes) of weights a second: the caches' rate, where all of a step's weights fit them.</summary>
    public double GigabytesPerSecond => Microseconds > 0 ? WeightBytes / Microseconds / 1e3 : 0;
}

/// <summary>One decode step, taken apart.</summary>
/// <param name="Kinds">The kinds of its ops, the slowest first.</param>
/// <param name="SumMicroseconds">Of all kinds: a step op by op, with an event behind each. On GPUs they wait for no launch, for the device is kept busy until all are on the stream; what the sum has more than <paramref name="StepMicroseconds"/> is what a graph saves between ops.</param>
/// <param name="StepMicroseconds">The median time of the same step as it runs otherwise, among others on the stream.</param>
/// <param name="Graph">True where it runs as a graph otherwise.</param>
/// <param name="Steps">Steps that the medians are of.</param>
public sealed record StepProfile(IReadOnlyList<KindTime> Kinds, double SumMicroseconds, double StepMicroseconds, bool Graph, int Steps);

/// <summary>Watches one step again and again: first its calls are written down, then each is followed by an event.</summary>
internal sealed class StepWatch : IStreamObserver, IDisposable
{
    private const ulong FillBytes = 64UL << 20;

    private readonly ComputeStream _stream;
    private readonly Weight _head;
    private readonly int _tokens;
    private readonly Action _step;
    private readonly List<(string Kind, long Bytes)> _calls = [];
    private readonly List<ComputeEvent> _events = []; // before the first call, then behind each
    private readonly List<double[]> _milliseconds = []; // a step's, by call
    private readonly DeviceBuffer? _filled;
    private int _next = -1;
    private int _fills;

    /// <param name="stream">Where the step runs; nobody else looks on.</param>
    /// <param name="head">The output matrix: the product with it is a kind of its own.</param>
    /// <param name="tokens">Of the step.</param>
    /// <param name="step">Puts the step on the stream: the same calls each time.</param>
    public StepWatch(ComputeStream stream, Weight head, int tokens, Action step)
    {
        (_stream, _head, _tokens, _step) = (stream, head, tokens, step);
        Observed();
        for (int i = 0; i <= _calls.Count; i++)
        {
            _events.Add(new ComputeEvent(stream.Device));
        }

        if (stream.Device.Backend == Backend.Cuda)
        {
            _filled = stream.CreateBuffer(FillBytes);
            _fills = FillsThatOutlast(Issued());
        }
    }

    public int Steps => _milliseconds.Count;

    /// <summary>Runs the step once more, and keeps the time of each call.</summary>
    public void Run()
    {
        Issued();
        double[] step = new double[_calls.Count];
        for (int i = 0; i < step.Length; i++)
        {
            step[i] = _events[i + 1].MillisecondsSince(_events[i]);
        }

        _milliseconds.Add(step);
    }

    /// <summary>The medians of all steps that ran, by kind, the slowest first.</summary>
    public IReadOnlyList<KindTime> Kinds()
    {
        double[] microseconds = [.. _calls.Select((_, call) => 1e3 * Median(_milliseconds.Select(step => step[call])))];
        double sum = microseconds.Sum();
        return [.. _calls.Select((call, i) => (call.Kind, call.Bytes, Microseconds: microseconds[i])).GroupBy(c => c.Kind)
            .Select(kind => (kind.Key, Calls: kind.Count(), Microseconds: kind.Sum(c => c.Microseconds), Bytes: kind.Sum(c => c.Bytes)))
            .Select(k => new KindTime(k.Key, k.Calls, k.Microseconds, sum > 0 ? 100 * k.Microseconds / sum : 0, k.Bytes))
            .OrderByDescending(k => k.Microseconds)];
    }

    public static double Median(IEnumerable<double> values)
    {
        double[] sorted = [.. values.Order()];
        return sorted[sorted.Length / 2];
    }

    void IStreamObserver.Called(string method, ReadOnlySpan<SafeHandle?> handles)
    {
        if (_next >= 0)
        {
            _events[++_next].Record(_stream);
            return;
        }

        bool isHead = false;
        long bytes = 0;
        foreach (SafeHandle? handle in handles)
        {
            if (handle is Weight weight)
            {
                isHead |= weight == _head;
                bytes += method == nameof(ComputeStream.Embedding) ? (long)weight.Bytes * _tokens / weight.Rows : (long)weight.Bytes;
            }
        }

        _calls.Add((method switch
        {
            nameof(ComputeStream.Linear) when isHead => "head",
            nameof(ComputeStream.ArgMax) => "argmax",
            _ => JsonNamingPolicy.SnakeCaseLower.ConvertName(method),
        }, bytes));
    }

    public void Dispose()
    {
        _filled?.Dispose();
        foreach (ComputeEvent e in _events)
        {
            e.Dispose();
        }
    }

    private void Observed()
    {
        _stream.Observer = this;
        try
        {
            _step();
        }
        finally
        {
            _stream.Observer = null;
        }
    }

    // Milliseconds until all is on the stream; it is done when this returns.
    private double Issued()
    {
        for (int i = 0; i < _fills; i++)
        {
            _stream.Fill(_filled!, 0, 0, FillBytes);
        }

        _next = 0;
        Stopwatch watch = Stopwatch.StartNew();
        _events[0].Record(_stream);
        Observed();
        double issued = watch.Elapsed.TotalMilliseconds;
        _stream.Synchronize();
        return issued;
    }

    // So many that the device is busy with them for twice the time in which a step is put on the stream. Not too many: a stream holds a thousand launches or so.
    private int FillsThatOutlast(double milliseconds)
    {
        _stream.Fill(_filled!, 0, 0, FillBytes);
        _events[0].Record(_stream);
        for (int i = 0; i < 10; i++)
        {
            _stream.Fill(_filled!, 0, 0, FillBytes);
        }

        _events[1].Record(_stream);
        _stream.Synchronize();
        return (int)Math.Clamp(2 * milliseconds / (_events[1].MillisecondsSince(_events[0]) / 10), 1, 400);
    }
}
