using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Kernels;

/// <summary>
/// The invariant mode of attention on GPUs: a token's row comes out the same to the bit whatever is computed beside it, in how many steps its
/// sequence came there, and whether its prefix is shared.
/// </summary>
public sealed class InvariantAttentionTests
{
    private const int Page = 16, H = 4;

    private static readonly int[] Lengths = [1300, 70, 530, 1, 300];

    public static TheoryData<Backend, DType, DType, int, int, int> Rows()
    {
        TheoryData<Backend, DType, DType, int, int, int> rows = [];
        foreach (Backend backend in new[] { Backend.Simt, Backend.Cuda })
        {
            rows.Add(backend, DType.F16, DType.F16, 2, 64, 0);
            rows.Add(backend, DType.BF16, DType.BF16, 1, 32, 100);
            rows.Add(backend, DType.F16, DType.FP8E4M3, 4, 64, 0);
            rows.Add(backend, DType.BF16, DType.I8, 2, 32, 0);
            rows.Add(backend, DType.F32, DType.F32, 2, 16, 0);
            rows.Add(backend, DType.F32, DType.FP8E4M3, 1, 32, 400);
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Rows))]
    public void Row_is_the_same_to_the_bit_alone_and_in_any_batch(Backend backend, DType dtype, DType kv, int kvHeads, int d, int window)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        using Setup setup = new(backend, invariant: true, dtype, kv, kvHeads, d, window);

        // The first sequence's last token: alone; behind others; in a chunk of 40; as the end of a longer sequence's chunk; with the first 512 keys shared.
        byte[] alone = setup.Run([new(0, Lengths[0], 1)], [])[^1];
        Same("beside four other sequences", setup.Run([new(2, 530, 3), new(0, Lengths[0], 1), new(1, 70, 70), new(3, 1, 1), new(4, 300, 9)], []), 3);
        Same("as the last of a chunk", setup.Run([new(0, Lengths[0], 40)], []), 39);
        Same("as the last of a chunk of 512 beside others", setup.Run([new(4, 300, 1), new(0, Lengths[0], 512), new(2, 530, 1)], []), 512);
        Same("in a chunk of which it is the first", setup.Run([new(0, Lengths[0], 1), new(0, Lengths[0] - 100, 1), new(0, Lengths[0] - 600, 1)], []), 0);
        Same("with a shared prefix", setup.Run([new(0, Lengths[0], 1), new(0, Lengths[0] - 17, 1), new(0, Lengths[0] - 300, 1)], [new(0, 3, 0, 512)]), 0);
        Same("with shared prefixes of two levels", setup.Run([new(0, Lengths[0], 1), new(0, Lengths[0] - 17, 1), new(0, 900, 1)], [new(0, 3, 0, 512), new(0, 2, 512, 256)]), 0);
        Same("in a batch made for many sequences", setup.Run([new(0, Lengths[0], 1)], [], capacity: 64), 0);

        void Same(string what, byte[][] rows, int row) => Assert.True(rows[row].AsSpan().SequenceEqual(alone), $"{what}: row {row} differs from the one alone");
    }

    // Without it the same batches differ somewhere, or the mode would show nothing.
    [Fact]
    public void Fast_mode_is_free_to_differ()
    {
        Assert.SkipWhen(Device.Count(Backend.Simt) == 0, "no simt device is here");
        using Setup setup = new(Backend.Simt, invariant: false, DType.F16, DType.F16, 2, 64, 0);
        byte[] alone = setup.Run([new(0, Lengths[0], 1)], [])[^1];
        Assert.False(setup.Run([new(0, Lengths[0], 40)], [])[39].AsSpan().SequenceEqual(alone));
    }

    /// <summary>The last <paramref name="Queries"/> tokens of the first <paramref name="Length"/> of a sequence.</summary>
    private readonly record struct Part(int Sequence, int Length, int Queries);

    // Sequences whose keys, values and queries are there in full: a step asks for any part of them.
    private sealed class Setup : IDisposable
    {
        private readonly Device _device;
        private readonly ComputeStream _stream;
        private readonly KvCache _cache;
        private readonly DType _dtype;
        private readonly int _d, _window;
        private readonly byte[] _queries;
        private readonly int[] _firstToken;

        public Setup(Backend backend, bool invariant, DType dtype, DType kv, int kvHeads, int d, int window)
        {
            _device = Device.Open(new DeviceOptions(backend) { Seed = 5, Invariant = invariant });
            _stream = _device.CreateStream();
            (_dtype, _d, _window) = (dtype, d, window);
            int[] pages = [.. Lengths.Select(l => (l + Page - 1) / Page)];
            int slots = pages.Sum() * Page;
            _firstToken = [.. pages.Select((_, b) => pages[..b].Sum() * Page)];
            _cache = new KvCache(_stream, new KvCacheOptions(kv, 1, pages.Sum(), kvHeads, d, d, Page));
            Random random = new(7);
            float[] Values(int count, float scale) => [.. Enumerable.Range(0, count).Select(_ => (random.NextSingle() - 0.5f) * scale)];
            _queries = HostTensor.Of(dtype, Values(slots * H * d, 8), slots, H, d).Data;
            using Batch all = new(_stream, _cache, new BatchOptions(slots, 1, pages.Sum()));
            all.Update(_stream, new BatchStep { QueryIndptr = [0, slots], KvLengths = [slots], PageIndptr = [0, pages.Sum()], PageIds = Enumerable.Range(0, pages.Sum()).ToArray() });
            Tensor k = _stream.CreateTensor<float>(DType.F32, Values(slots * kvHeads * d, 2), slots, kvHeads, d), v = _stream.CreateTensor<float>(DType.F32, Values(slots * kvHeads * d, 2), slots, kvHeads, d);
            _stream.Reserve(_stream.Measure(() => _stream.KvAppend(_cache, 0, all, k, v)));
            _stream.KvAppend(_cache, 0, all, k, v);
            _stream.Synchronize();
        }

        /// <summary>The rows of o of a step, each as bytes.</summary>
        public byte[][] Run(Part[] parts, SharedPrefix[] prefixes, int capacity = 0)
        {
            int tokens = parts.Sum(p => p.Queries), row = H * _d * _dtype.Size();
            int[] query = [0, .. parts.Select((_, b) => parts[..(b + 1)].Sum(p => p.Queries))], indptr = new int[parts.Length + 1];
            List<int> ids = [];
            List<byte> q = [];
            for (int b = 0; b < parts.Length; b++)
            {
                Part p = parts[b];
                int first = _firstToken[p.Sequence];
                ids.AddRange(Enumerable.Range(first / Page, (p.Length + Page - 1) / Page));
                indptr[b + 1] = ids.Count;
                q.AddRange(_queries.AsSpan((first + p.Length - p.Queries) * row, p.Queries * row));
            }

            using Batch batch = new(_stream, _cache, new BatchOptions(tokens, Math.Max(parts.Length, capacity), ids.Count + 5, 0, prefixes.Length) { Sharing = Sharing.Always, QueryHeads = H });
            batch.Update(_stream, new BatchStep { QueryIndptr = query, KvLengths = [.. parts.Select(p => p.Length)], PageIndptr = indptr, PageIds = ids.ToArray(), Prefixes = prefixes });
            Tensor packed = _stream.CreateTensor<byte>(_dtype, q.ToArray(), tokens, H, _d), o = _stream.CreateTensor(_dtype, tokens, H, _d);
            AttentionArgs a = new() { Cache = _cache, Batch = batch, Q = packed, O = o, Causal = true, Window = _window };
            void Op()
            {
                if (prefixes.Length > 0)
                {
                    _stream.CascadeAttention(a);
                }
                else
                {
                    _stream.PagedAttention(a);
                }
            }

            _stream.Reserve(_stream.Measure(Op));
            Op();
            byte[] data = new byte[o.Count * _dtype.Size()];
            _stream.Download(o, data.AsSpan());
            _stream.Synchronize();
            return [.. data.Chunk(row)];
        }

        public void Dispose()
        {
            _cache.Dispose();
            _stream.Dispose();
            _device.Dispose();
        }
    }
}
