using Sluice.Interop;

namespace Sluice.Tests.Interop;

/// <summary>A batch's plan is checked in full; a graph replays with whatever plan is in force.</summary>
public sealed class BatchAndGraphTests : IDisposable
{
    private readonly Device _device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 2 });
    private readonly ComputeStream _stream;
    private readonly KvCache _cache;
    private readonly Batch _batch;

    public BatchAndGraphTests()
    {
        _stream = _device.CreateStream();
        _cache = new KvCache(_stream, new KvCacheOptions(DType.F32, 1, 40, 1, 8, 8));
        _batch = new Batch(_stream, _cache, new BatchOptions(16, 4, 64, 64, 4));
    }

    public static TheoryData<string, int[], int[], int[], int[], string> Wrong() => new()
    {
        { "negative page", [0, 1], [1], [0, 1], [-1], "page_ids[0] is -1" },
        { "page past the cache", [0, 1], [1], [0, 1], [40], "0..39" },
        { "too few pages", [0, 1], [17], [0, 1], [3], "its pages hold 16" },
        { "fewer keys than queries", [0, 3], [2], [0, 1], [3], "query rows" },
        { "falling rows", [0, 2, 1], [5, 5], [0, 1, 2], [0, 1], "falls" },
        { "first row not 0", [1, 2], [5], [0, 1], [0], "expected 0" },
        { "too many tokens", [0, 17], [17], [0, 2], [0, 1], "made for 16" },
        { "too many sequences", [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [], "made for 4" },
    };

    [Theory]
    [MemberData(nameof(Wrong))]
    public void Wrong_step_is_refused_and_leaves_the_last_plan(string what, int[] query, int[] lengths, int[] indptr, int[] pages, string expected)
    {
        SluiceException e = Assert.Throws<SluiceException>(() => _batch.Update(_stream, new BatchStep { QueryIndptr = query, KvLengths = lengths, PageIndptr = indptr, PageIds = pages }));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
        Assert.True(e.Status is Status.ErrArgument or Status.ErrShape, what);
    }

    [Fact]
    public void Op_without_a_plan_is_refused()
    {
        Tensor q = _stream.CreateTensor(DType.F32, 1, 1, 8);
        SluiceException e = Assert.Throws<SluiceException>(() => _stream.PagedAttention(new AttentionArgs { Cache = _cache, Batch = _batch, Q = q, O = q }));
        Assert.Equal(Status.ErrState, e.Status);
    }

    [Theory]
    [InlineData(0, 2, 0, 100, "multiples of 256")]
    [InlineData(0, 3, 0, 256, "has 2")]
    [InlineData(0, 2, 256, 256, "cover sequence 0 up to key 0")]
    [InlineData(0, 2, 0, 512, "keys before its queries")]
    public void Wrong_prefix_is_refused(int first, int count, int key, int keys, string expected)
    {
        int[] pages = [.. Enumerable.Range(0, 17), .. Enumerable.Range(0, 16), 20];
        SluiceException e = Assert.Throws<SluiceException>(() => Update(first, count, key, keys, pages));
        Assert.Contains(expected, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Prefix_whose_pages_differ_is_refused()
    {
        int[] pages = [.. Enumerable.Range(0, 17), .. Enumerable.Range(0, 16), 20];
        Update(0, 2, 0, 256, pages);
        pages[17 + 5] = 30;
        SluiceException e = Assert.Throws<SluiceException>(() => Update(0, 2, 0, 256, pages));
        Assert.Contains("page 5 of sequence 1", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Graph_replays_with_the_plan_in_force()
    {
        Random random = new(5);
        Tensor k = _stream.CreateTensor(DType.F32, 4, 1, 8), v = _stream.CreateTensor(DType.F32, 4, 1, 8), q = _stream.CreateTensor(DType.F32, 4, 2, 8);
        Tensor direct = _stream.CreateTensor(DType.F32, 4, 2, 8), replayed = _stream.CreateTensor(DType.F32, 4, 2, 8);
        Step(4, [4]);
        void Ops(Tensor o)
        {
            _stream.KvAppend(_cache, 0, _batch, k, v);
            _stream.PagedAttention(new AttentionArgs { Cache = _cache, Batch = _batch, Q = q, O = o, Causal = true });
        }

        _stream.Reserve(_stream.Measure(() => Ops(direct)));
        using ComputeGraph graph = _stream.Capture(() => Ops(replayed));
        foreach ((int tokens, int[] lengths) in new[] { (4, new[] { 4 }), (3, [30]), (2, [17, 40]), (1, [5]), (0, []) })
        {
            Step(tokens, lengths);
            foreach (Tensor t in new[] { k, v, q })
            {
                float[] fill = new float[t.Count];
                for (int i = 0; i < fill.Length; i++)
                {
                    fill[i] = random.NextSingle() - 0.5f;
                }

                _stream.Upload<float>(t, fill);
            }

            Ops(direct);
            graph.Launch();
            float[] a = new float[direct.Count], b = new float[direct.Count];
            _stream.Download(direct, a.AsSpan());
            _stream.Download(replayed, b.AsSpan());
            Assert.Equal(a, b);
            Assert.All(a.Skip(tokens * 16), x => Assert.Equal(0, x));
            Assert.Contains(a.Take(tokens * 16).Append(1), x => x != 0);
        }

        void Step(int tokens, int[] lengths)
        {
            int[] query = new int[lengths.Length + 1], indptr = new int[lengths.Length + 1];
            for (int b = 0; b < lengths.Length; b++)
            {
                query[b + 1] = b == lengths.Length - 1 ? tokens : query[b] + 1;
                indptr[b + 1] = indptr[b] + ((lengths[b] + 15) / 16);
            }

            // Every slot holds something finite: the history of this test is whatever was appended before.
            _batch.Update(_stream, new BatchStep { QueryIndptr = query, KvLengths = lengths, PageIndptr = indptr, PageIds = Enumerable.Range(0, indptr[^1]).ToArray() });
        }
    }

    [Fact]
    public void Graph_refuses_a_plan_larger_than_its_tensors()
    {
        Tensor q = _stream.CreateTensor(DType.F32, 1, 1, 8), o = _stream.CreateTensor(DType.F32, 1, 1, 8);
        void Ops() => _stream.PagedAttention(new AttentionArgs { Cache = _cache, Batch = _batch, Q = q, O = o, Causal = true });
        _batch.Update(_stream, new BatchStep { QueryIndptr = [0, 1], KvLengths = [1], PageIndptr = [0, 1], PageIds = [0] });
        _stream.Reserve(_stream.Measure(Ops));
        using ComputeGraph graph = _stream.Capture(Ops);
        _batch.Update(_stream, new BatchStep { QueryIndptr = [0, 16], KvLengths = [16], PageIndptr = [0, 1], PageIds = [0] });
        SluiceException e = Assert.Throws<SluiceException>(graph.Launch);
        Assert.Equal(Status.ErrShape, e.Status);
        Assert.Contains("16 tokens", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Page_that_two_sequences_write_is_refused()
    {
        SluiceException e = Assert.Throws<SluiceException>(() => _batch.Update(_stream, new BatchStep { QueryIndptr = [0, 1, 2], KvLengths = [3, 3], PageIndptr = [0, 1, 2], PageIds = [5, 5] }));
        Assert.Contains("page 5 is written twice", e.Message, StringComparison.Ordinal);

        // Reading it together is what shared pages are for.
        _batch.Update(_stream, new BatchStep { QueryIndptr = [0, 1, 2], KvLengths = [17, 17], PageIndptr = [0, 2, 4], PageIds = [5, 6, 5, 7] });
    }

    [Fact]
    public void Output_that_overlaps_an_input_is_refused()
    {
        using Weight square = Weight.Create(_stream, new WeightSource { Encoding = WeightEncoding.F32, Rows = 32, Cols = 32, Data = new byte[32 * 32 * 4] });
        Tensor x = _stream.CreateTensor<float>(DType.F32, new float[4 * 32], 4, 32), w = _stream.CreateTensor<float>(DType.F32, new float[32], 32);
        Assert.Contains("overlap", Assert.Throws<SluiceException>(() => _stream.Linear(x, square, x)).Message, StringComparison.Ordinal);
        Assert.Contains("overlap", Assert.Throws<SluiceException>(() => _stream.RmsNorm(x.Rows(0, 3), w, 1e-5f, x.Rows(1, 3))).Message, StringComparison.Ordinal);
        _stream.RmsNorm(x, w, 1e-5f, x);
    }

    [Fact]
    public void Capture_refuses_what_cannot_be_recorded()
    {
        SluiceException? refused = null;
        using ComputeGraph graph = _stream.Capture(() => refused = Assert.Throws<SluiceException>(() => _stream.CreateTensor(DType.F32, 4)));
        Assert.Equal(Status.ErrState, refused!.Status);
    }

    [Fact]
    public void Workspace_that_is_too_small_says_how_much_is_needed()
    {
        using ComputeStream stream = _device.CreateStream();
        using Weight weight = Weight.Create(stream, new WeightSource { Encoding = WeightEncoding.Q8_0, Rows = 64, Cols = 64, Data = new byte[64 * 2 * 34] });
        Tensor x = stream.CreateTensor<float>(DType.F32, new float[64 * 64], 64, 64), y = stream.CreateTensor(DType.F32, 64, 64);
        ulong needed = stream.Measure(() => stream.Linear(x, weight, y));
        Assert.True(needed > 0);
        SluiceException e = Assert.Throws<SluiceException>(() => stream.Linear(x, weight, y));
        Assert.Equal(Status.ErrWorkspace, e.Status);
        Assert.Contains(needed.ToString(System.Globalization.CultureInfo.InvariantCulture), e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Copied_pages_hold_the_same_keys()
    {
        float[] values = [.. Enumerable.Range(0, 16 * 8).Select(i => (float)i)];
        Tensor k = _stream.CreateTensor<float>(DType.F32, values, 16, 1, 8);
        _batch.Update(_stream, new BatchStep { QueryIndptr = [0, 16], KvLengths = [16], PageIndptr = [0, 1], PageIds = [7] });
        _stream.Reserve(_stream.Measure(() => _stream.KvAppend(_cache, 0, _batch, k, k)));
        _stream.KvAppend(_cache, 0, _batch, k, k);
        _cache.CopyPages(_stream, [7], [12]);
        (Tensor keys, _) = _cache.Layer(0);
        Tensor rows = new(null, keys.Pointer, keys.Offset, DType.F32, [40 * 16, 8]), copied = _stream.CreateTensor(DType.F32, 16, 8);
        _stream.Gather(rows, _stream.CreateTensor<int>(DType.I32, Enumerable.Range(12 * 16, 16).ToArray(), 16), copied);
        float[] read = new float[16 * 8];
        _stream.Download(copied, read.AsSpan());
        Assert.Equal(values, read);
        Assert.Throws<SluiceException>(() => _cache.CopyPages(_stream, [1, 2], [3, 3]));
        Assert.Throws<SluiceException>(() => _cache.CopyPages(_stream, [1, 2], [2, 3]));
        Assert.Throws<SluiceException>(() => _cache.CopyPages(_stream, [40], [3]));
    }

    [Fact]
    public void Cascade_reads_a_shared_prefix_once_and_gives_the_same_bits()
    {
        using KvCache cache = new(_stream, new KvCacheOptions(DType.F16, 1, 64, 2, 64, 64));
        using Batch batch = new(_stream, cache, new BatchOptions(600, 4, 200, 0, 2));
        Random random = new(3);
        Tensor Random(params ReadOnlySpan<long> shape)
        {
            float[] data = new float[shape.ToArray().Aggregate(1L, (a, b) => a * b)];
            for (int i = 0; i < data.Length; i++)
            {
                data[i] = random.NextSingle() - 0.5f;
            }

            return _stream.CreateTensor<float>(DType.F32, data, shape);
        }

        // 512 shared keys, then 8 of each of four sequences.
        int[] shared = [.. Enumerable.Range(0, 32)], pages = [.. Enumerable.Range(0, 4).SelectMany(b => shared.Append(40 + b))], indptr = [0, 33, 66, 99, 132];
        batch.Update(_stream, new BatchStep { QueryIndptr = [0, 512], KvLengths = [512], PageIndptr = [0, 32], PageIds = shared });
        Append(512);
        batch.Update(_stream, new BatchStep { QueryIndptr = [0, 8, 16, 24, 32], KvLengths = [520, 520, 520, 520], PageIndptr = indptr, PageIds = pages });
        Append(32);
        batch.Update(_stream, new BatchStep { QueryIndptr = [0, 1, 2, 3, 4], KvLengths = [520, 520, 520, 520], PageIndptr = indptr, PageIds = pages, Prefixes = [new SharedPrefix(0, 4, 0, 512)] });

        Tensor q = Random(4, 8, 64), flat = _stream.CreateTensor(DType.F32, 4, 8, 64), cascade = _stream.CreateTensor(DType.F32, 4, 8, 64);
        AttentionArgs Args(Tensor o) => new() { Cache = cache, Batch = batch, Q = q, O = o, Causal = true };
        _stream.Reserve(_stream.Measure(() =>
        {
            _stream.PagedAttention(Args(flat));
            _stream.CascadeAttention(Args(cascade));
        }));
        _device.ResetCounters();
        _stream.PagedAttention(Args(flat));
        ulong flatBytes = _device.ReadCounters().KvBytesRead;
        _device.ResetCounters();
        _stream.CascadeAttention(Args(cascade));
        ulong cascadeBytes = _device.ReadCounters().KvBytesRead;

        float[] a = new float[flat.Count], b = new float[flat.Count];
        _stream.Download(flat, a.AsSpan());
        _stream.Download(cascade, b.AsSpan());
        Assert.Equal(a, b);
        const ulong key = 2 * 2 * 64 * 2; // K and V, two heads of 64, two bytes each
        Assert.Equal(4 * 520 * key, flatBytes);
        Assert.Equal((512 + (4 * 8)) * key, cascadeBytes);

        void Append(int rows)
        {
            Tensor k = Random(rows, 2, 64), v = Random(rows, 2, 64);
            _stream.Reserve(_stream.Measure(() => _stream.KvAppend(cache, 0, batch, k, v)));
            _stream.KvAppend(cache, 0, batch, k, v);
        }
    }

    public void Dispose()
    {
        _batch.Dispose();
        _cache.Dispose();
        _stream.Dispose();
        _device.Dispose();
    }

    private void Update(int first, int count, int key, int keys, int[] pages) => _batch.Update(_stream, new BatchStep
    {
        QueryIndptr = [0, 1, 2], KvLengths = [260, 260], PageIndptr = [0, 17, 34], PageIds = pages, Prefixes = [new SharedPrefix(first, count, key, keys)],
    });
}
