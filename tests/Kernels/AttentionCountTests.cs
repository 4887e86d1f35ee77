using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>What attention moves as the executor counts it, and graphs of it that are replayed with other plans.</summary>
public sealed class AttentionCountTests : IDisposable
{
    private const int H = 8, Hkv = 2, D = 64, Page = 16, Rows = 48;

    private readonly Device _device = Device.Open(new DeviceOptions(Backend.Simt) { Seed = 4 });
    private readonly ComputeStream _stream;
    private readonly Random _random = new(3);

    public AttentionCountTests() => _stream = _device.CreateStream();

    // Where D and Dv fill their class; else the lanes of a copy part, and the executor takes the accesses of different
    // instructions for one.
    public static TheoryData<string> WholeTiles() =>
        [.. AttentionCases.Tiles().Where(c => c.Inputs["q"].DType != DType.F32 && (c.Inputs["q"].DType == c.Cache!.DType || c.Cache.DType.Size() == 1) && c.Cache.KeyDim is 64 or 128 or 256 && c.Cache.ValueDim == c.Cache.KeyDim).Select(c => c.ToString())];

    [Theory]
    [MemberData(nameof(WholeTiles))]
    public void Tensor_core_tiles_meet_no_bank_twice(string name)
    {
        using OpRunner runner = new(_device, AttentionCases.Tiles().Single(c => c.ToString() == name));
        runner.Stream.Synchronize();
        _device.ResetCounters();
        runner.Run();
        runner.Stream.Synchronize();
        Counters n = _device.ReadCounters();
        Assert.True(n.Mma > 0);
        Assert.Equal(0UL, n.BankConflicts);
    }

    [Theory]
    [InlineData(DType.F16, DType.F16, 64 / 4)] // a tile of 64 rows is 16 tokens of a group of 4
    [InlineData(DType.F32, DType.F32, 32 / 4)]
    [InlineData(DType.BF16, DType.FP8E4M3, 64 / 4)]
    public void Prompt_reads_its_keys_once_a_tile(DType dtype, DType kv, int tokensOfTile)
    {
        using KvCache cache = new(_stream, new KvCacheOptions(kv, 1, 100, Hkv, D, D, Page));
        using Batch batch = new(_stream, cache, new BatchOptions(Rows, 1, 20));
        const int before = 256;
        Plan(batch, [0, Rows], [before + Rows]);
        Fill(cache, 100, dtype);
        ulong read = Count(batch, cache, dtype, Rows, cascade: false).BytesRead;
        ulong slot = Hkv * 2 * ((D * (ulong)kv.Size()) + (kv == DType.FP8E4M3 ? 4UL : 0));
        ulong keys = 0, queries = (ulong)(Rows * H * D * dtype.Size());
        for (int first = 0; first < Rows; first += tokensOfTile)
        {
            keys += (ulong)(before + first + tokensOfTile) * slot;
        }

        Assert.InRange(read, keys + queries, (ulong)((keys + queries) * 1.6)); // the plan's arrays beside
    }

    [Theory]
    [InlineData(DType.F16, DType.F16)]
    [InlineData(DType.F32, DType.F32)]
    [InlineData(DType.F16, DType.I8)]
    public void Cascade_reads_a_shared_prefix_once(DType dtype, DType kv)
    {
        const int sequences = 8;
        using KvCache cache = new(_stream, new KvCacheOptions(kv, 1, 140, Hkv, D, D, Page));
        Fill(cache, 140, dtype);
        (ulong Flat, ulong Cascade) few = Read(1024), many = Read(2048); // as many splits of the prefix
        ulong keys = 1024UL * Hkv * 2 * ((D * (ulong)kv.Size()) + (kv == DType.I8 ? 4UL : 0));
        Assert.True(many.Flat - few.Flat >= sequences * keys);
        Assert.InRange(many.Cascade - few.Cascade, keys, keys * 5 / 4); // the page ids beside

        (ulong Flat, ulong Cascade) Read(int shared)
        {
            using Batch batch = new(_stream, cache, new BatchOptions(sequences, sequences, 8 * 130, 0, 1));
            int[] pages = [.. Enumerable.Range(0, sequences).SelectMany(b => Enumerable.Range(0, shared / Page).Append(130 + b))];
            batch.Update(_stream, new BatchStep
            {
                QueryIndptr = [.. Enumerable.Range(0, sequences + 1)],
                KvLengths = [.. Enumerable.Repeat(shared + 8, sequences)],
                PageIndptr = [.. Enumerable.Range(0, sequences + 1).Select(b => b * ((shared / Page) + 1))],
                PageIds = pages,
                Prefixes = [new SharedPrefix(0, sequences, 0, shared)],
            });
            return (Count(batch, cache, dtype, sequences, cascade: false).BytesRead, Count(batch, cache, dtype, sequences, cascade: true).BytesRead);
        }
    }

    // One graph for prompts, speculated tokens, decode and nothing, with prefixes and without: the same as the reference each time.
    [Theory]
    [InlineData(DType.F16, DType.F16, 6, true)]
    [InlineData(DType.F16, DType.F16, 48, true)]
    [InlineData(DType.F32, DType.F32, 6, true)]
    [InlineData(DType.BF16, DType.FP8E4M3, 6, true)]
    [InlineData(DType.F16, DType.F16, 6, false)]
    [InlineData(DType.F16, DType.F16, 48, false)]
    public void Graph_of_attention_is_right_for_every_plan(DType dtype, DType kv, int sequences, bool cascade)
    {
        using Device truth = Device.Open(new DeviceOptions(Backend.Reference));
        using ComputeStream plain = truth.CreateStream();
        KvCacheOptions options = new(kv, 1, 100, Hkv, D, D, Page);
        using KvCache cache = new(_stream, options), same = new(plain, options);
        BatchOptions capacity = new(Rows, sequences, 200, 0, 4);
        using Batch batch = new(_stream, cache, capacity), sameBatch = new(plain, same, capacity);
        float[] keys = Values(100 * Page * Hkv * D), values = Values(100 * Page * Hkv * D), queries = Values(Rows * H * D);
        Append(_stream, cache, keys, values);
        Append(plain, same, keys, values);
        HostTensor packed = HostTensor.Of(dtype, queries, Rows, H, D);
        Tensor q = _stream.CreateTensor<byte>(dtype, packed.Data, Rows, H, D), o = _stream.CreateTensor(dtype, Rows, H, D);
        Tensor q2 = plain.CreateTensor<byte>(dtype, packed.Data, Rows, H, D), o2 = plain.CreateTensor(dtype, Rows, H, D);

        Plan(batch, [0, 1], [1]);
        void Ops()
        {
            AttentionArgs a = new() { Cache = cache, Batch = batch, Q = q, O = o, Causal = true };
            if (cascade)
            {
                _stream.CascadeAttention(a);
            }
            else
            {
                _stream.PagedAttention(a);
            }
        }

        _stream.Reserve(_stream.Measure(Ops));
        using ComputeGraph graph = _stream.Capture(Ops);
        (int[] Queries, int[] Lengths, SharedPrefix[] Prefixes)[] plans =
        [
            ([48], [300], []),
            ([1, 1, 1, 1, 1, 1], [530, 600, 520, 300, 17, 1], [new(0, 3, 0, 512), new(3, 1, 0, 256)]),
            ([5, 0, 20, 3], [261, 0, 290, 600], [new(2, 2, 0, 256), new(3, 1, 256, 256)]),
            ([], [], []),
            ([1, 30, 1], [800, 31, 900], []),
            ([2, 2], [1060, 1050], [new(0, 2, 0, 256), new(0, 2, 256, 256), new(0, 1, 512, 512), new(1, 1, 512, 512)]),
        ];
        foreach ((int[] rows, int[] lengths, SharedPrefix[] prefixes) in plans)
        {
            int[] query = [.. Enumerable.Range(0, rows.Length + 1).Select(b => rows[..b].Sum())];
            Plan(batch, query, lengths, prefixes);
            sameBatch.Update(plain, Step(query, lengths, prefixes));
            graph.Launch();
            plain.PagedAttention(new AttentionArgs { Cache = same, Batch = sameBatch, Q = q2, O = o2, Causal = true });
            double[] actual = Read(_stream, o), expected = Read(plain, o2);
            double tolerance = dtype switch { DType.F32 => 2e-6, DType.F16 => 2e-3, _ => 1.6e-2 };
            for (int i = 0; i < actual.Length; i++)
            {
                Assert.True(Math.Abs(actual[i] - expected[i]) <= tolerance, $"plan of {rows.Length}: [{i}] is {actual[i]}, expected {expected[i]}");
            }
        }

        double[] Read(ComputeStream stream, Tensor t)
        {
            byte[] data = new byte[t.Count * dtype.Size()];
            stream.Download(t, data.AsSpan());
            stream.Synchronize();
            return new HostTensor(dtype, [Rows, H, D], data).ToDoubles();
        }
    }

    [Theory]
    [InlineData(DType.I8)]
    [InlineData(DType.FP8E4M3)]
    public void Copied_pages_bring_their_scales(DType kv)
    {
        using KvCache cache = new(_stream, new KvCacheOptions(kv, 2, 6, Hkv, D, D, Page));
        using Batch batch = new(_stream, cache, new BatchOptions(20, 1, 4));
        float[] keys = Values(20 * Hkv * D), values = Values(20 * Hkv * D);
        Step([0, 2]);
        for (int layer = 0; layer < 2; layer++)
        {
            Tensor k = _stream.CreateTensor<float>(DType.F32, keys, 20, Hkv, D), v = _stream.CreateTensor<float>(DType.F32, values, 20, Hkv, D);
            _stream.Reserve(_stream.Measure(() => _stream.KvAppend(cache, layer, batch, k, v)));
            _stream.KvAppend(cache, layer, batch, k, v);
        }

        byte[] before = Attend();
        Assert.Contains(before, b => b != 0);
        cache.CopyPages(_stream, [0, 2], [5, 3]);
        Step([5, 3]);
        Assert.Equal(before, Attend());

        void Step(int[] pages) => batch.Update(_stream, new BatchStep { QueryIndptr = [0, 20], KvLengths = [20], PageIndptr = [0, 2], PageIds = pages });

        byte[] Attend()
        {
            Tensor q = _stream.CreateTensor<float>(DType.F32, [.. Enumerable.Range(0, 20 * H * D).Select(i => MathF.Sin(i))], 20, H, D), o = _stream.CreateTensor(DType.F32, 20, H, D);
            AttentionArgs a = new() { Cache = cache, Layer = 1, Batch = batch, Q = q, O = o, Causal = true };
            _stream.Reserve(_stream.Measure(() => _stream.PagedAttention(a)));
            _stream.PagedAttention(a);
            byte[] data = new byte[20 * H * D * 4];
            _stream.Download(o, data.AsSpan());
            _stream.Synchronize();
            return data;
        }
    }

    public void Dispose()
    {
        _stream.Dispose();
        _device.Dispose();
    }

    private static BatchStep Step(int[] query, int[] lengths, SharedPrefix[] prefixes)
    {
        // Sequences have pages of their own at the end and share all before: as many as fit.
        int[] indptr = new int[lengths.Length + 1];
        List<int> pages = [];
        for (int b = 0; b < lengths.Length; b++)
        {
            int count = (lengths[b] + Page - 1) / Page, own = (lengths[b] - (query[b + 1] - query[b])) / Page;
            pages.AddRange(Enumerable.Range(0, count).Select(page => page < own ? page : 99 - (b * 4) - (page - own)));
            indptr[b + 1] = pages.Count;
        }

        return new BatchStep { QueryIndptr = query, KvLengths = lengths, PageIndptr = indptr, PageIds = pages.ToArray(), Prefixes = prefixes };
    }

    private static void Append(ComputeStream stream, KvCache cache, float[] keys, float[] values)
    {
        const int pages = 100;
        using Batch all = new(stream, cache, new BatchOptions(pages * Page, 1, pages));
        all.Update(stream, new BatchStep { QueryIndptr = [0, pages * Page], KvLengths = [pages * Page], PageIndptr = [0, pages], PageIds = Enumerable.Range(0, pages).ToArray() });
        Tensor k = stream.CreateTensor<float>(DType.F32, keys, pages * Page, Hkv, D), v = stream.CreateTensor<float>(DType.F32, values, pages * Page, Hkv, D);
        stream.Reserve(stream.Measure(() => stream.KvAppend(cache, 0, all, k, v)));
        stream.KvAppend(cache, 0, all, k, v);
        stream.Synchronize();
    }

    private void Plan(Batch batch, int[] query, int[] lengths, params SharedPrefix[] prefixes) => batch.Update(_stream, Step(query, lengths, prefixes));

    private float[] Values(int count) => [.. Enumerable.Range(0, count).Select(_ => _random.NextSingle() - 0.5f)];

    // Something finite in every slot.
    private void Fill(KvCache cache, int pages, DType dtype)
    {
        int slots = pages * Page;
        using Batch all = new(_stream, cache, new BatchOptions(slots, 1, pages));
        all.Update(_stream, new BatchStep { QueryIndptr = [0, slots], KvLengths = [slots], PageIndptr = [0, pages], PageIds = Enumerable.Range(0, pages).ToArray() });
        Tensor k = _stream.CreateTensor<byte>(dtype, HostTensor.Of(dtype, Values(slots * Hkv * D)).Data, slots, Hkv, D);
        _stream.Reserve(_stream.Measure(() => _stream.KvAppend(cache, 0, all, k, k)));
        _stream.KvAppend(cache, 0, all, k, k);
        _stream.Synchronize();
    }

    private Counters Count(Batch batch, KvCache cache, DType dtype, int rows, bool cascade)
    {
        Tensor q = _stream.CreateTensor<byte>(dtype, HostTensor.Of(dtype, Values(rows * H * D)).Data, rows, H, D), o = _stream.CreateTensor(dtype, rows, H, D);
        AttentionArgs a = new() { Cache = cache, Batch = batch, Q = q, O = o, Causal = true };
        void Run()
        {
            if (cascade)
            {
                _stream.CascadeAttention(a);
            }
            else
            {
                _stream.PagedAttention(a);
            }
        }

        _stream.Reserve(_stream.Measure(Run));
        _stream.Synchronize();
        _device.ResetCounters();
        Run();
        _stream.Synchronize();
        return _device.ReadCounters();
    }
}
