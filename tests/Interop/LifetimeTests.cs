using Sluice.Interop;

namespace Sluice.Tests.Interop;

/// <summary>Runs alone: it counts the live objects of the whole process.</summary>
[CollectionDefinition(nameof(Alone), DisableParallelization = true)]
public sealed class Alone;

/// <summary>Handles: any order of release, any thread, no leak, no use after the end.</summary>
[Collection(nameof(Alone))]
public sealed class LifetimeTests
{
    [Fact]
    public void Live_handles_return_to_where_they_were()
    {
        Collect();
        HandleCounts before = Device.LiveHandles;
        using (Device device = Device.Open(Backend.Cpu))
        using (ComputeStream stream = device.CreateStream())
        using (KvCache cache = NewCache(stream))
        using (Batch batch = new(stream, cache, new BatchOptions(4, 2, 8)))
        using (ComputeEvent e = new(device))
        using (Weight weight = NewWeight(stream))
        {
            Tensor x = stream.CreateTensor<float>(DType.F32, new float[64], 2, 32), y = stream.CreateTensor(DType.F32, 2, 8);
            stream.Reserve(stream.Measure(() => stream.Linear(x, weight, y)));
            using ComputeGraph graph = stream.Capture(() => stream.Linear(x, weight, y));
            graph.Launch();
            HandleCounts during = Device.LiveHandles;
            Assert.Equal(before.Devices + 1, during.Devices);
            Assert.Equal(before.Graphs + 1, during.Graphs);
            Assert.Equal(before.Buffers + 2, during.Buffers);
            x.Buffer!.Dispose();
            y.Buffer!.Dispose();
        }

        Collect();
        Assert.Equal(before, Device.LiveHandles);
    }

    [Fact]
    public void Parents_may_be_released_before_their_children()
    {
        Collect();
        HandleCounts before = Device.LiveHandles;
        Device device = Device.Open(Backend.Cpu);
        ComputeStream stream = device.CreateStream();
        KvCache cache = NewCache(stream);
        Batch batch = new(stream, cache, new BatchOptions(4, 2, 8));
        Weight weight = NewWeight(stream);
        Tensor t = stream.CreateTensor(DType.F32, 4);
        device.Dispose();
        stream.Dispose();
        cache.Dispose();
        batch.Dispose();
        weight.Dispose();
        t.Buffer!.Dispose();
        t.Buffer!.Dispose();
        Collect();
        Assert.Equal(before, Device.LiveHandles);
    }

    [Fact]
    public unsafe void Stream_released_while_it_captures_leaves_nothing()
    {
        Collect();
        HandleCounts before = Device.LiveHandles;
        sl_device_options options = new() { size = (uint)sizeof(sl_device_options), backend = Backend.Cpu };
        sl_device* device;
        sl_stream* stream;
        sl_buffer* buffer;
        Assert.Equal(Status.Ok, NativeMethods.sl_device_open(&options, &device));
        Assert.Equal(Status.Ok, NativeMethods.sl_stream_create(device, null, &stream));
        Assert.Equal(Status.Ok, NativeMethods.sl_buffer_create(stream, 64, MemoryKind.Device, &buffer));
        Assert.Equal(Status.Ok, NativeMethods.sl_graph_begin(stream));
        Assert.Equal(Status.Ok, NativeMethods.sl_buffer_fill(stream, buffer, 0, 1, 64));
        NativeMethods.sl_buffer_release(buffer);
        NativeMethods.sl_stream_release(stream);
        NativeMethods.sl_device_release(device);

        Collect();
        Assert.Equal(before, Device.LiveHandles);
    }

    [Fact]
    public void Forgotten_objects_are_collected()
    {
        Collect();
        HandleCounts before = Device.LiveHandles;
        Forget();
        Collect();
        Assert.Equal(before, Device.LiveHandles);

        static void Forget()
        {
            Device device = Device.Open(Backend.Cpu);
            ComputeStream stream = device.CreateStream();
            _ = stream.CreateTensor(DType.F32, 1024);
            _ = NewWeight(stream);
            _ = NewCache(stream);
        }
    }

    [Fact]
    public void Disposed_object_is_refused()
    {
        using Device device = Device.Open(Backend.Cpu);
        using ComputeStream stream = device.CreateStream();
        Tensor x = stream.CreateTensor(DType.F32, 2, 4), w = stream.CreateTensor(DType.F32, 4);
        w.Buffer!.Dispose();
        Assert.Throws<ObjectDisposedException>(() => stream.RmsNorm(x, w, 1e-5f, x));
        stream.Dispose();
        Assert.Throws<ObjectDisposedException>(() => stream.Synchronize());
    }

    [Fact]
    public async Task Buffer_disposed_on_another_thread_is_safe_while_ops_run()
    {
        using Device device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 2 });
        using ComputeStream stream = device.CreateStream();
        for (int round = 0; round < 200; round++)
        {
            Tensor x = stream.CreateTensor<float>(DType.F32, new float[4096], 16, 256), w = stream.CreateTensor<float>(DType.F32, new float[256], 256);
            Task dispose = Task.Run(() => x.Buffer!.Dispose());
            try
            {
                stream.RmsNorm(x, w, 1e-5f, x);
            }
            catch (ObjectDisposedException)
            {
                // The other thread was first.
            }

            await dispose;
            w.Buffer!.Dispose();
        }
    }

    [Fact]
    public void Stream_in_use_by_another_thread_says_so()
    {
        using Device device = Device.Open(new DeviceOptions(Backend.Cpu) { Threads = 1 });
        using ComputeStream stream = device.CreateStream();
        Tensor x = stream.CreateTensor<float>(DType.F32, new float[1 << 20], 1024, 1024), w = stream.CreateTensor<float>(DType.F32, new float[1024], 1024);
        int refused = 0, done = 0;
        Parallel.For(0, 4, _ =>
        {
            for (int i = 0; i < 50; i++)
            {
                try
                {
                    stream.RmsNorm(x, w, 1e-5f, x);
                    Interlocked.Increment(ref done);
                }
                catch (SluiceException e)
                {
                    Assert.Equal(Status.ErrState, e.Status);
                    Assert.Contains("another thread", e.Message, StringComparison.Ordinal);
                    Interlocked.Increment(ref refused);
                }
            }
        });
        Assert.Equal(200, refused + done);
        Assert.True(done > 0);
    }

    [Theory]
    [InlineData(Backend.Cpu)]
    [InlineData(Backend.Simt)]
    [InlineData(Backend.Cuda)]
    public void Impossible_allocation_says_how_much_was_wanted_and_leaves_all_usable(Backend backend)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        using Device device = Device.Open(backend);
        using ComputeStream stream = device.CreateStream();
        SluiceException e = Assert.Throws<SluiceException>(() => stream.CreateBuffer(1UL << 60));
        Assert.Equal(Status.ErrOutOfMemory, e.Status);
        Assert.Contains("1152921504606846976", e.Message.Replace(",", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.Contains("free", e.Message, StringComparison.Ordinal);
        Assert.Throws<SluiceException>(() => stream.Reserve(1UL << 60));
        using Weight still = NewWeight(stream);
        e = Assert.Throws<SluiceException>(() => new KvCache(stream, new KvCacheOptions(DType.F16, 1000, int.MaxValue - 1, 128, 4096, 4096)));
        Assert.True(e.Status is Status.ErrOutOfMemory or Status.ErrArgument, e.Message);
    }

    // Larger than what a backend moves at once: every part has to arrive where it belongs.
    [Theory]
    [InlineData(Backend.Cpu)]
    [InlineData(Backend.Simt)]
    [InlineData(Backend.Cuda)]
    public void Large_weight_arrives_whole(Backend backend)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        const int rows = 1_500, cols = 5_000;
        float[] values = new float[rows * cols];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = i;
        }

        using Device device = Device.Open(backend);
        using ComputeStream stream = device.CreateStream();
        using Weight weight = Weight.Create(stream, new WeightSource { Encoding = WeightEncoding.F32, Rows = rows, Cols = cols, Data = System.Runtime.InteropServices.MemoryMarshal.AsBytes(values.AsSpan()) });
        int[] ids = [0, 419, 420, 838, 839, 1258, 1259, 1499]; // on both sides of each 8 MiB
        Tensor y = stream.CreateTensor(DType.F32, ids.Length, cols), which = stream.CreateTensor<int>(DType.I32, ids, ids.Length);
        stream.Reserve(stream.Measure(() => stream.Embedding(which, weight, 1, y)));
        stream.Embedding(which, weight, 1, y);
        float[] read = new float[ids.Length * cols];
        stream.Download(y, read.AsSpan());
        Assert.All(ids, (id, at) => Assert.True(values.AsSpan(id * cols, cols).SequenceEqual(read.AsSpan(at * cols, cols)), $"row {id}"));
        y.Buffer!.Dispose();
        which.Buffer!.Dispose();
    }

    // Finalisers release whenever they like: the thread that works on the stream must not notice.
    [Fact]
    public void Releases_on_another_thread_refuse_no_call()
    {
        using Device device = Device.Open(Backend.Cpu);
        using ComputeStream stream = device.CreateStream();
        using DeviceBuffer target = stream.CreateBuffer(64);
        DeviceBuffer[] buffers = [.. Enumerable.Range(0, 20_000).Select(_ => stream.CreateBuffer(64))];
        Thread releasing = new(() => Array.ForEach(buffers, b => b.Dispose()));
        releasing.Start();
        int calls = 0;
        while (releasing.IsAlive || calls < 100)
        {
            stream.Fill(target, 0, 1, 64);
            calls++;
        }

        releasing.Join();
    }

    private static KvCache NewCache(ComputeStream stream) => new(stream, new KvCacheOptions(DType.F32, 2, 8, 2, 16, 16));

    private static Weight NewWeight(ComputeStream stream) => Weight.Create(stream, new WeightSource { Encoding = WeightEncoding.F32, Rows = 8, Cols = 32, Data = new byte[8 * 32 * 4] });

    private static void Collect()
    {
        for (int i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }
}
