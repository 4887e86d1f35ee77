using System.Reflection;
using System.Runtime.InteropServices;
using Sluice.Interop;
using Sluice.Kernels;

namespace Sluice.Tests.Interop;

/// <summary>Both sides of the boundary agree, and whatever comes over it is answered with a status.</summary>
public sealed unsafe class AbiTests
{
    // What takes no argument that could be null, or returns no status.
    private static readonly string[] WithoutStatus = ["sl_version", "sl_last_error", "sl_status_name", "sl_abi_layout", "sl_device_count"];

    public static TheoryData<string> Functions() => [.. NativeMethods.Functions];

    public static TheoryData<string, string, string> WrongTensors()
    {
        TheoryData<string, string, string> rows = [];
        // Copies, saves and loads of pages take arrays and memory of the host.
        foreach (IGrouping<string, OpCase> op in KernelCases.All.Where(c => !c.Op.EndsWith("_pages", StringComparison.Ordinal)).GroupBy(c => c.Op))
        {
            // One case that has every tensor of the op, or as many as any has.
            OpCase c = op.MaxBy(o => o.Inputs.Keys.Union(o.Outputs.Keys).Count())!;
            foreach (string tensor in c.Inputs.Keys.Union(c.Outputs.Keys).Where(t => !t.StartsWith("cache_", StringComparison.Ordinal)))
            {
                foreach (string change in new[] { "extent", "rank", "dtype", "offset", "pointer", "stride" })
                {
                    rows.Add(c.ToString(), tensor, change);
                }
            }
        }

        return rows;
    }

    [Fact]
    public void Structs_have_the_same_layout_on_both_sides() =>
        Assert.Equal(NativeMethods.Layout(), Marshal.PtrToStringUTF8((nint)NativeMethods.sl_abi_layout()));

    [Fact]
    public void Versions_agree()
    {
        uint version = NativeMethods.sl_version();
        Assert.Equal((uint)Constants.VersionMajor, version >> 16);
        Assert.Equal((uint)Constants.VersionMinor, version & 0xffff);
    }

    [Theory]
    [MemberData(nameof(Functions))]
    public void Function_is_exported(string name) => Assert.True(NativeLibrary.TryGetExport(Library(), name, out _), name);

    [Fact]
    public void Nothing_else_is_exported()
    {
        // The dynamic symbol table, read from the ELF file: names that begin with sl_ and are not in the header.
        byte[] file = File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "libsluice.so"));
        string text = System.Text.Encoding.Latin1.GetString(file);
        int strings = text.IndexOf("\0sl_", StringComparison.Ordinal);
        Assert.True(strings > 0);
        HashSet<string> known = [.. NativeMethods.Functions];
        HashSet<string> found = [.. System.Text.RegularExpressions.Regex.Matches(text[strings..Math.Min(text.Length, strings + 65536)], @"(?<=\0)sl_[a-z0-9_]+(?=\0)").Select(m => m.Value)];
        Assert.Subset(known, found);
    }

    [Theory]
    [MemberData(nameof(Functions))]
    public void Function_survives_nulls_and_says_so(string name)
    {
        if (WithoutStatus.Contains(name))
        {
            // Nothing to pass; the call itself is the test.
            Assert.NotEqual("", name);
            return;
        }

        // Every parameter 0: integers and pointers in registers and on the stack; floats take what is in theirs.
        var f = (delegate* unmanaged<nint, nint, nint, nint, nint, nint, nint, nint, nint, nint, nint, nint, int>)NativeLibrary.GetExport(Library(), name);
        int status = f(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        if (name.EndsWith("_release", StringComparison.Ordinal))
        {
            return;
        }

        Assert.Equal(Status.ErrArgument, (Status)status);
        string text = Marshal.PtrToStringUTF8((nint)NativeMethods.sl_last_error())!;
        Assert.StartsWith(name + ": ", text, StringComparison.Ordinal);
        Assert.Contains("null", text, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Functions))]
    public void Function_refuses_a_handle_of_another_kind(string name)
    {
        MethodInfo method = typeof(NativeMethods).GetMethod(name, BindingFlags.Static | BindingFlags.NonPublic)!;
        Type? first = method.GetParameters().FirstOrDefault()?.ParameterType;
        if (WithoutStatus.Contains(name) || name.EndsWith("_release", StringComparison.Ordinal) || first is null || !first.IsPointer || first.GetElementType()!.GetFields().Length > 0)
        {
            return;
        }

        using Device device = Device.Open(Backend.Cpu);
        using ComputeStream stream = device.CreateStream();
        NativeHandle wrong = first == typeof(sl_stream*) ? device : stream;
        bool added = false;
        wrong.DangerousAddRef(ref added);
        var f = (delegate* unmanaged<nint, nint, nint, nint, nint, nint, nint, nint, nint, nint, nint, nint, int>)NativeLibrary.GetExport(Library(), name);
        long* scratch = stackalloc long[64];
        scratch[0] = 8;
        nint s = (nint)scratch;
        int status = f(wrong.DangerousGetHandle(), s, s, s, s, s, s, s, s, s, s, s);
        wrong.DangerousRelease();
        Assert.NotEqual(Status.Ok, (Status)status);
    }

    [Theory]
    [MemberData(nameof(WrongTensors))]
    public void Op_refuses_a_tensor_that_does_not_fit(string name, string tensor, string change)
    {
        OpCase c = KernelCases.Get(name);
        using OpRunner runner = new(KernelTestsDevice(), c);
        Tensor good = runner[tensor];
        long[] shape = [.. Enumerable.Range(0, good.Rank).Select(good.Shape)];
        long[] strides = [.. Enumerable.Range(0, good.Rank).Select(good.Stride)];
        Tensor bad = change switch
        {
            "extent" => new Tensor(good.Buffer, 0, good.Offset, good.DType, [.. shape[..^1], shape[^1] + 1]),
            "rank" => new Tensor(good.Buffer, 0, good.Offset, good.DType, shape.Length == 1 ? [1, shape[0]] : [shape.Aggregate(1L, (a, b) => a * b)]),
            "dtype" => new Tensor(good.Buffer, 0, good.Offset, good.DType == DType.U8 ? DType.I64 : DType.U8, shape),
            "offset" => new Tensor(good.Buffer, 0, (ulong)long.MaxValue, good.DType, shape),
            "pointer" => new Tensor(null, 0, 0, good.DType, shape),
            _ => new Tensor(good.Buffer, 0, good.Offset, good.DType, shape, [.. strides[..^1], 2]),
        };
        if (change == "stride" && shape[^1] < 2)
        {
            return;
        }

        // The gather takes any dtype as long as both sides agree; the wrong one is refused for the other tensor's sake.
        runner.Replace(tensor, bad);
        SluiceException e = Assert.Throws<SluiceException>(runner.Run);
        Assert.True(e.Status is Status.ErrShape or Status.ErrDtype or Status.ErrArgument, e.Message);
        Assert.Contains("sl_" + c.Op, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Struct_of_unknown_size_is_refused()
    {
        sl_device_options options = default;
        sl_device* device;
        foreach (uint size in new uint[] { 0, 4, 9, (uint)sizeof(sl_device_options) + 8, uint.MaxValue })
        {
            options.size = size;
            Assert.Equal(Status.ErrArgument, NativeMethods.sl_device_open(&options, &device));
            Assert.True(device == null);
        }

        // A caller with an older, shorter header is served.
        options.size = 8;
        options.backend = Backend.Cpu;
        Assert.Equal(Status.Ok, NativeMethods.sl_device_open(&options, &device));
        NativeMethods.sl_device_release(device);
    }

    [Fact]
    public void Status_names_are_those_of_the_header()
    {
        foreach (Status status in Enum.GetValues<Status>())
        {
            string name = Marshal.PtrToStringUTF8((nint)NativeMethods.sl_status_name(status))!;
            Assert.Equal("SL" + status.ToString(), name.Replace("_", "", StringComparison.Ordinal), ignoreCase: true);
        }

        Assert.Equal("SL_ERR_?", Marshal.PtrToStringUTF8((nint)NativeMethods.sl_status_name((Status)99)));
    }

    [Fact]
    public void Absent_device_says_what_was_tried()
    {
        Assert.SkipWhen(Device.Count(Backend.Cuda) > 0, "a CUDA device is here");
        SluiceException e = Assert.Throws<SluiceException>(() => Device.Open(Backend.Cuda));
        Assert.Equal(Status.ErrNoDevice, e.Status);
        Assert.Contains("cuda", e.Message, StringComparison.OrdinalIgnoreCase);
        Assert.Equal(Status.ErrNoDevice, Assert.Throws<SluiceException>(() => Device.Open(new DeviceOptions(Backend.Cpu) { Ordinal = 3 })).Status);
    }

    private static Device KernelTestsDevice() => Targets.Open("cpu/portable");

    private static nint Library()
    {
        _ = NativeMethods.sl_version();
        return NativeLibrary.Load(NativeMethods.Library, typeof(NativeMethods).Assembly, null);
    }
}
