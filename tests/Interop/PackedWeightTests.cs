using System.Runtime.InteropServices;
using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Interop;

/// <summary>Weights as their device keeps them: read, kept, and made again of what was kept.</summary>
public sealed class PackedWeightTests
{
    public static TheoryData<WeightEncoding, int, string> Weights()
    {
        TheoryData<WeightEncoding, int, string> rows = [];
        foreach (WeightEncoding encoding in Enum.GetValues<WeightEncoding>())
        {
            bool gptq = encoding is WeightEncoding.GPTQ4 or WeightEncoding.GPTQ4V2, grouped = gptq || encoding is WeightEncoding.AWQ4 or WeightEncoding.INT8;
            rows.Add(encoding, grouped ? 64 : 0, "");
            if (grouped)
            {
                rows.Add(encoding, 16, ""); // kept as f32
            }

            if (gptq)
            {
                rows.Add(encoding, 64, "act order");
                rows.Add(encoding, 64, "groups of different sizes"); // kept as f32
            }
        }

        return rows;
    }

    [Theory, MemberData(nameof(Weights))]
    public void A_weight_of_kept_bytes_is_the_same_weight(WeightEncoding encoding, int group, string order)
    {
        using Device device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 2 });
        using ComputeStream stream = device.CreateStream();
        using Weight first = Make(stream, encoding, group, order);
        PackedWeight packed = first.Packed;
        Assert.Equal((encoding, 24L, 256L, group, order == "act order", first.Bytes), (packed.Encoding, packed.Rows, packed.Cols, packed.Group, packed.HasOrder, packed.Bytes));
        CountedBlock block = Keep(first, packed, out int[] columns);
        Weight second = Weight.Create(stream, packed, block, 64, columns);
        block.Dispose(); // the weight keeps it
        Assert.False(block.Released);
        Assert.Equal(packed, second.Packed);
        Assert.Equal(columns, second.ReadPackedOrder());
        Assert.Equal(Product(stream, first), Product(stream, second));
        second.Dispose();
        Assert.True(block.Released);
    }

    [Fact]
    public void A_graph_keeps_the_memory_of_its_weights()
    {
        using Device device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 1 });
        using ComputeStream stream = device.CreateStream();
        using Weight first = Make(stream, WeightEncoding.Q4_0, 0, "");
        PackedWeight packed = first.Packed;
        CountedBlock block = Keep(first, packed, out _);
        Weight second = Weight.Create(stream, packed, block, 64, []);
        block.Dispose();
        Tensor x = stream.CreateTensor<float>(DType.F32, new CaseData("x").Normal(256), 1, 256), y = stream.CreateTensor(DType.F32, 1, 24);
        stream.Reserve(stream.Measure(() => stream.Linear(x, second, y)));
        using (ComputeGraph graph = stream.Capture(() => stream.Linear(x, second, y)))
        {
            second.Dispose();
            Assert.False(block.Released);
            graph.Launch();
        }

        Assert.True(block.Released);
        float[] got = new float[24];
        stream.Download<float>(y, got);
        stream.Synchronize();
        Assert.Equal(Product(stream, first, 1), got);
        x.Buffer!.Dispose();
        y.Buffer!.Dispose();
    }

    [Theory]
    [InlineData("layout", Status.ErrUnsupported)]
    [InlineData("encoding", Status.ErrUnsupported)]
    [InlineData("unknown encoding", Status.ErrArgument)]
    [InlineData("rows", Status.ErrShape)]
    [InlineData("many rows", Status.ErrShape)]
    [InlineData("group", Status.ErrShape)]
    [InlineData("bytes", Status.ErrShape)]
    [InlineData("alignment", Status.ErrArgument)]
    [InlineData("order outside", Status.ErrArgument)]
    [InlineData("order below", Status.ErrArgument)]
    [InlineData("order twice", Status.ErrArgument)]
    [InlineData("order short", Status.ErrShape)]
    public void What_does_not_fit_is_refused_and_its_memory_let_go(string change, Status status)
    {
        using Device device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 1 });
        using ComputeStream stream = device.CreateStream();
        using Weight weight = Make(stream, WeightEncoding.GPTQ4, 64, "act order");
        PackedWeight packed = weight.Packed;
        CountedBlock block = Keep(weight, packed, out int[] order);
        PackedWeight wrong = change switch
        {
            "layout" => packed with { Layout = packed.Layout + (1 << 16) },
            "encoding" => packed with { Encoding = WeightEncoding.Q8_0, Group = 0 },
            "unknown encoding" => packed with { Encoding = (WeightEncoding)99 },
            "rows" => packed with { Rows = 40 },
            "many rows" => packed with { Rows = long.MaxValue / 8 * 8 },
            "group" => packed with { Group = 7 },
            "bytes" => packed with { Bytes = packed.Bytes - 64 },
            _ => packed,
        };
        switch (change)
        {
            case "order outside":
                order[3] = 256;
                break;
            case "order below":
                order[3] = -1;
                break;
            case "order twice":
                order[3] = order[4];
                break;
            default:
                break;
        }

        SluiceException e = Assert.Throws<SluiceException>(() => Weight.Create(stream, wrong, block, change == "alignment" ? 32u : 64u, change == "order short" ? order.AsSpan(1) : order));
        Assert.Equal(status, e.Status);
        Assert.Throws<ArgumentOutOfRangeException>(() => Weight.Create(stream, packed, block, block.ByteLength - 64, order));
        block.Dispose();
        Assert.True(block.Released);
    }

    [Fact]
    public void Other_backends_say_that_they_keep_their_bytes()
    {
        using Device device = Device.Open(Backend.Reference);
        using ComputeStream stream = device.CreateStream();
        using Weight weight = Make(stream, WeightEncoding.Q4_0, 0, "");
        Assert.Equal(Status.ErrUnsupported, Assert.Throws<SluiceException>(() => weight.Packed).Status);
        using CountedBlock block = new(4096);
        Assert.Equal(Status.ErrUnsupported, Assert.Throws<SluiceException>(() => Weight.Create(stream, new PackedWeight(WeightEncoding.Q4_0, 24, 256, 0, 1, 1024, false), block, 0, [])).Status);
    }

    private static Weight Make(ComputeStream stream, WeightEncoding encoding, int group, string order)
    {
        CaseData data = new("packed");
        HostWeight w = data.Weight(encoding, 24, 256, group);
        int[] groups = [.. data.Permutation(256).Select(k => k / 64)];
        if (order == "groups of different sizes")
        {
            groups[0] = (groups[0] + 1) % 4;
        }

        return OpRunner.Create(stream, order.Length == 0 ? w : w with { Order = groups });
    }

    // The weight's bytes behind 64 others, read in pieces.
    private static CountedBlock Keep(Weight weight, PackedWeight packed, out int[] order)
    {
        CountedBlock block = new(packed.Bytes + 64);
        byte[] piece = new byte[1000];
        for (ulong at = 0; at < packed.Bytes; at += 1000)
        {
            Span<byte> part = piece.AsSpan(0, (int)Math.Min(1000, packed.Bytes - at));
            weight.ReadPacked(at, part);
            block.WriteSpan<byte>(64 + at, part);
        }

        Assert.Throws<ArgumentOutOfRangeException>(() => weight.ReadPacked(packed.Bytes - 1, new byte[2]));
        order = weight.ReadPackedOrder();
        return block;
    }

    private static float[] Product(ComputeStream stream, Weight weight, int rows = 5)
    {
        Tensor x = stream.CreateTensor<float>(DType.F32, new CaseData("x").Normal(rows * 256), rows, 256), y = stream.CreateTensor(DType.F32, rows, 24);
        stream.Reserve(stream.Measure(() => stream.Linear(x, weight, y)));
        stream.Linear(x, weight, y);
        float[] result = new float[rows * 24];
        stream.Download<float>(y, result);
        stream.Synchronize();
        x.Buffer!.Dispose();
        y.Buffer!.Dispose();
        Assert.DoesNotContain(result, float.IsNaN);
        return result;
    }

    private sealed unsafe class CountedBlock : SafeBuffer
    {
        public CountedBlock(ulong bytes)
            : base(ownsHandle: true)
        {
            SetHandle((nint)NativeMemory.AlignedAlloc((nuint)bytes, 64));
            Initialize(bytes);
        }

        public bool Released { get; private set; }

        protected override bool ReleaseHandle()
        {
            NativeMemory.AlignedFree((void*)handle);
            return Released = true;
        }
    }
}
