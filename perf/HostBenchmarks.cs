using System.Runtime.InteropServices;
using BenchmarkDotNet.Attributes;
using Sluice.Decoding;
using Sluice.Interop;
using Sluice.Paging;

namespace Sluice.Perf;

/// <summary>What a decode step costs the host beside the device's work: the plan, the choice of a token, and a whole token of the draft that ships.</summary>
[MemoryDiagnoser]
public class HostBenchmarks
{
    private const int Sequences = 64, Context = 4096, Vocabulary = 128256, PageSize = 16;

    private readonly List<int> _pages = [];
    private readonly int[] _query = new int[Sequences + 1], _lengths = new int[Sequences], _indptr = new int[Sequences + 1];
    private Device _device = null!;
    private ComputeStream _stream = null!;
    private KvCache _cache = null!;
    private Batch _batch = null!;
    private BlockPool _pool = null!;
    private PageTable[] _tables = null!;
    private Tensor _logits;
    private Sampler _greedy = null!, _drawn = null!;
    private Model _model = null!;
    private Session _session = null!;
    private DecodeLoop? _loop;

    [GlobalSetup]
    public void Setup()
    {
        _device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 1 });
        _stream = _device.CreateStream();
        int pages = Sequences * Context / PageSize;
        _cache = new KvCache(_stream, new KvCacheOptions(DType.F16, 1, pages, 1, 16, 16, PageSize));
        _batch = new Batch(_stream, _cache, new BatchOptions(Sequences, Sequences, pages));
        _pool = new BlockPool(pages, PageSize);
        _tables = [.. Enumerable.Range(0, Sequences).Select(_ => new PageTable(_pool))];
        foreach (PageTable table in _tables)
        {
            table.Append(Context / 2);
        }

        float[] logits = new float[Vocabulary];
        Random random = new(1);
        foreach (ref float logit in logits.AsSpan())
        {
            logit = (float)(8 * random.NextDouble());
        }

        _logits = _stream.CreateTensor<float>(DType.F32, logits, 1, Vocabulary);
        _greedy = new Sampler(_stream, new SamplingParameters(), Vocabulary, Context, 1, DType.F32);
        _drawn = new Sampler(_stream, new SamplingParameters { Temperature = 0.8f, TopK = 40, TopP = 0.95f }, Vocabulary, Context, 1, DType.F32);
        _model = Model.LoadAsync(Path.Combine("models", "tales-draft"), new ModelOptions { Device = Backend.Cpu, Threads = 1 }).GetAwaiter().GetResult();
        _session = _model.CreateSession();
    }

    [GlobalCleanup]
    public void Cleanup()
    {
        _loop?.Dispose();
        _session.Dispose();
        _model.Dispose();
        _drawn.Dispose();
        _greedy.Dispose();
        _batch.Dispose();
        _cache.Dispose();
        _stream.Dispose();
        _device.Dispose();
    }

    [Benchmark(Description = "plan of 64 sequences, 2,049 keys each")]
    public void Plan()
    {
        _pages.Clear();
        for (int b = 0; b < Sequences; b++)
        {
            _tables[b].Truncate(Context / 2);
            _tables[b].Append(1);
            _query[b + 1] = b + 1;
            _lengths[b] = _tables[b].Length;
            _pages.AddRange(_tables[b].Pages);
            _indptr[b + 1] = _pages.Count;
        }

        _batch.Update(_stream, new BatchStep { QueryIndptr = _query, KvLengths = _lengths, PageIndptr = _indptr, PageIds = CollectionsMarshal.AsSpan(_pages) });
    }

    [Benchmark(Description = "arg-max of 128,256 logits")]
    public int Greedy() => Choose(_greedy);

    [Benchmark(Description = "draw from 128,256 logits, top-k and top-p")]
    public int Drawn() => Choose(_drawn);

    [Benchmark(Description = "a token of tales-draft")]
    public int Token()
    {
        if (_loop is null || _loop.Length > 900)
        {
            _loop?.Dispose();
            _loop = _session.Decode([1, 2, 3, 4], new SamplingParameters { MaxTokens = 1000 }, 1);
        }

        return _loop.Next(out _, out _);
    }

    private int Choose(Sampler sampler)
    {
        sampler.Begin(_logits, [], 0, 0);
        return sampler.End(out _, out _);
    }
}
