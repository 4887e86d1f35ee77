using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Interop;

/// <summary>Pages in host memory lie as sluice.h says, come back as they were, and whatever does not fit is refused.</summary>
public sealed class HostPagesTests
{
    private const int KvHeads = 2, KeyDim = 10, ValueDim = 7, Layers = 2;

    public static TheoryData<Backend, DType, int> Rows()
    {
        TheoryData<Backend, DType, int> rows = [];
        foreach (Backend backend in new[] { Backend.Reference, Backend.Cpu, Backend.Simt, Backend.Cuda })
        {
            foreach (DType type in new[] { DType.F32, DType.F16, DType.BF16, DType.I8, DType.FP8E4M3 })
            {
                foreach (int pageSize in new[] { 1, 8, 16 })
                {
                    rows.Add(backend, type, pageSize);
                }
            }
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Rows))]
    public void Pages_lie_in_host_memory_as_documented_and_come_back_the_same(Backend backend, DType type, int pageSize)
    {
        using Device device = OpenOrSkip(backend);
        using ComputeStream stream = device.CreateStream();
        // In one type more pages than a launch takes.
        int pages = type == DType.F16 && pageSize == 1 ? 150 : 7, moved = pages - 3, slots = KvHeads * pageSize, size = type.Size();
        using KvCache cache = new(stream, new KvCacheOptions(type, Layers, pages, KvHeads, KeyDim, ValueDim, pageSize));
        int bytes = (int)cache.PageBytes;
        Assert.Equal(AttentionCases.HostPageBytes(cache.Options), bytes);

        // Finite numbers in every type: gather may go through floats.
        CaseData r = new($"host pages {type} {pageSize}");
        byte[] saved = size == 1 ? [.. r.Ints(moved * bytes, 120).Select(x => (byte)x)] : HostTensor.Of(type, r.Normal(moved * bytes / size)).Data;
        using DeviceBuffer host = stream.CreateBuffer((ulong)(32 + (2 * moved * bytes)), MemoryKind.Host), staging = stream.CreateBuffer((ulong)(moved * bytes));
        stream.Upload(staging, 0, saved);
        stream.Copy(staging, 0, host, 16, (ulong)(moved * bytes));
        int[] ids = [.. Enumerable.Range(0, pages).Reverse().Where(i => i % (pages / 3) != 1).Take(moved)];
        cache.LoadPages(stream, ids, host, 16);

        int valuesAt = Whole(Layers * slots * KeyDim * size);
        for (int layer = 0; layer < Layers; layer++)
        {
            (Tensor keys, Tensor values) = cache.Layer(layer);
            Assert.Equal(Expected(0, KeyDim, layer), Read(keys, KeyDim));
            Assert.Equal(Expected(valuesAt, ValueDim, layer), Read(values, ValueDim));
        }

        // Bytes between the parts stay as they were: here 0xA5.
        ulong second = (ulong)(32 + (moved * bytes));
        stream.Fill(staging, 0, 0xa5, (ulong)(moved * bytes));
        stream.Copy(staging, 0, host, second, (ulong)(moved * bytes));
        cache.SavePages(stream, ids, host, second);
        stream.Copy(host, second, staging, 0, (ulong)(moved * bytes));
        byte[] again = new byte[moved * bytes];
        stream.Download(new Tensor(staging, DType.U8, again.Length), again.AsSpan());
        int[] parts = size == 1 ? [slots * KeyDim, slots * ValueDim, slots * 4, slots * 4] : [slots * KeyDim * size, slots * ValueDim * size];
        for (int i = 0; i < moved; i++)
        {
            int at = i * bytes;
            foreach (int part in parts)
            {
                Assert.Equal(saved[at..(at + (Layers * part))], again[at..(at + (Layers * part))]);
                Assert.All(again[(at + (Layers * part))..(at + Whole(Layers * part))], gap => Assert.Equal(0xa5, gap));
                at += Whole(Layers * part);
            }

            Assert.Equal((i + 1) * bytes, at);
        }

        static int Whole(int bytes) => (bytes + 15) / 16 * 16;

        byte[] Expected(int at, int dim, int layer)
        {
            int piece = slots * dim * size;
            return [.. Enumerable.Range(0, moved).SelectMany(i => saved.AsSpan((i * bytes) + at + (layer * piece), piece).ToArray())];
        }

        byte[] Read(Tensor pool, int dim)
        {
            Tensor rows = new(null, pool.Pointer, pool.Offset, type, [pages * slots, dim]);
            using DeviceBuffer wanted = stream.CreateTensor<int>(DType.I32, ids.SelectMany(p => Enumerable.Range(p * slots, slots)).ToArray(), moved * slots).Buffer!;
            using DeviceBuffer read = stream.CreateTensor(type, moved * slots, dim).Buffer!;
            stream.Gather(rows, new Tensor(wanted, DType.I32, moved * slots), new Tensor(read, type, moved * slots, dim));
            byte[] found = new byte[moved * slots * dim * size];
            stream.Download(new Tensor(read, DType.U8, found.Length), found.AsSpan());
            return found;
        }
    }

    [Theory]
    [InlineData(Backend.Reference, DType.I8, 127)]
    [InlineData(Backend.Cpu, DType.I8, 127)]
    [InlineData(Backend.Simt, DType.FP8E4M3, 448)]
    [InlineData(Backend.Cuda, DType.I8, 127)]
    public void Scales_lie_behind_the_values_those_of_keys_first(Backend backend, DType type, float largest)
    {
        using Device device = OpenOrSkip(backend);
        using ComputeStream stream = device.CreateStream();
        using KvCache cache = new(stream, new KvCacheOptions(type, 2, 2, 1, 4, 4, 1));
        using Batch batch = new(stream, cache, new BatchOptions(2, 1, 2));
        batch.Update(stream, new BatchStep { QueryIndptr = [0, 2], KvLengths = [2], PageIndptr = [0, 2], PageIds = [0, 1] });
        float[] scales = [2, 3, 5, 7, 11, 13, 17, 19]; // layer by layer: keys of two tokens, then values
        for (int layer = 0; layer < 2; layer++)
        {
            float[] k = [.. scales[(4 * layer)..((4 * layer) + 2)].SelectMany(x => Enumerable.Repeat(x * largest, 4))], v = [.. scales[((4 * layer) + 2)..((4 * layer) + 4)].SelectMany(x => Enumerable.Repeat(-x * largest, 4))];
            Tensor keys = stream.CreateTensor<float>(DType.F32, k, 2, 1, 4), values = stream.CreateTensor<float>(DType.F32, v, 2, 1, 4);
            stream.Reserve(stream.Measure(() => stream.KvAppend(cache, layer, batch, keys, values)));
            stream.KvAppend(cache, layer, batch, keys, values);
            stream.Synchronize();
            keys.Buffer!.Dispose();
            values.Buffer!.Dispose();
        }

        // Keys 2 x 4 bytes, values as many, each to 16; two scales, to 16 each.
        Assert.Equal(64UL, cache.PageBytes);
        using DeviceBuffer host = stream.CreateBuffer(128, MemoryKind.Host);
        cache.SavePages(stream, [1, 0], host, 0);
        stream.Synchronize();
        Assert.Equal([3f, 13, 7, 19, 2, 11, 5, 17], new ulong[] { 32, 36, 48, 52, 96, 100, 112, 116 }.Select(host.Read<float>));
    }

    [Fact]
    public void What_does_not_fit_is_refused_with_its_reason()
    {
        using Device device = Device.Open(Backend.Cpu), other = Device.Open(Backend.Cpu);
        using ComputeStream stream = device.CreateStream(), elsewhere = other.CreateStream();
        using KvCache cache = new(stream, new KvCacheOptions(DType.F16, 1, 4, 1, 8, 8, 16));
        ulong page = cache.PageBytes;
        using DeviceBuffer host = stream.CreateBuffer((2 * page) + 8, MemoryKind.Host), on = stream.CreateBuffer(4 * page), foreign = elsewhere.CreateBuffer(4 * page, MemoryKind.Host);
        Both([0], on, 0, Status.ErrArgument, "device memory");
        Both([0], foreign, 0, Status.ErrArgument, "another device");
        Both([0], host, 8, Status.ErrArgument, "offset is 8, expected a multiple of 16");
        Both([0], host, page + 16, Status.ErrShape, "the buffer has");
        Both([0, 1, 2], host, 0, Status.ErrShape, "the buffer has");
        Both([0], host, ulong.MaxValue - 15, Status.ErrShape, "the buffer has");
        Both([0, 4], host, 0, Status.ErrArgument, "pages[1] is 4, the cache has the pages 0..3");
        Both([-1], host, 0, Status.ErrArgument, "pages[0] is -1");
        Both([0, 1, 2, 3, 0], host, 0, Status.ErrArgument, "count is 5");
        Refused(Status.ErrArgument, "page 2 is a target twice", () => cache.LoadPages(stream, [2, 2], host, 0));
        Refused(Status.ErrArgument, "another device", () => cache.SavePages(elsewhere, [0], foreign, 0));
        using ComputeGraph graph = stream.Capture(() => Both([0], host, 0, Status.ErrState, "captured"));

        cache.SavePages(stream, [2, 2], host, 0);
        cache.LoadPages(stream, [3, 2], host, 0);
        cache.SavePages(stream, [], host, 0);

        void Both(int[] pages, DeviceBuffer buffer, ulong offset, Status status, string reason)
        {
            Refused(status, reason, () => cache.SavePages(stream, pages, buffer, offset));
            Refused(status, reason, () => cache.LoadPages(stream, pages, buffer, offset));
        }

        static void Refused(Status status, string reason, Action call)
        {
            SluiceException e = Assert.Throws<SluiceException>(call);
            Assert.Equal(status, e.Status);
            Assert.Contains(reason, e.Message, StringComparison.Ordinal);
        }
    }

    private static Device OpenOrSkip(Backend backend)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        return Device.Open(backend);
    }
}
