using System.Buffers.Binary;
using System.Globalization;
using System.Security.Cryptography;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;

namespace Sluice.Tests.Host;

/// <summary>The packed copy beside a model: written once, read from then on, and believed only where it is what was written.</summary>
public sealed class PackedCopyTests : IDisposable
{
    private const string Small = "models/stories260K/stories260K-q4_k_m.gguf";
    private const int SignedBytes = 64;
    private static readonly ModelOptions Cached = new() { Device = Backend.Cpu, Threads = 2, ContextLength = 64, CachePacked = true };
    private readonly TempFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("models/tiny/tiny-llama-f16.gguf", true)]
    [InlineData("models/tiny/tiny-llama-q4_k_m.gguf", true)]
    [InlineData("models/tiny/tiny-llama-q8_0.gguf", false)]
    [InlineData("hf/tiny-llama-gptq-g32-act", true)]
    [InlineData("hf/tiny-llama-awq-g128", false)]
    public async Task The_second_load_takes_the_copy_and_computes_the_same(string name, bool memoryMap)
    {
        string path = Take(name), copy = Directory.Exists(path) ? Path.Combine(path, "model.packed-cpu") : path + ".packed-cpu";
        ModelOptions options = Cached with { MemoryMap = memoryMap };
        string plain = await RunAsync(path, options with { CachePacked = false }, null);
        Assert.False(File.Exists(copy));
        Assert.Equal(plain, await RunAsync(path, options, new PackedCopy(copy, PackedCopyUse.Written, "")));
        byte[] written = File.ReadAllBytes(copy);
        Assert.Equal(plain, await RunAsync(path, options, new PackedCopy(copy, PackedCopyUse.Read, "")));
        Assert.Equal(plain, await RunAsync(path, options with { VerifyPacked = true }, new PackedCopy(copy, PackedCopyUse.Read, "")));
        Assert.Equal(written, File.ReadAllBytes(copy));
        Assert.Equal(Path.GetFileName(copy), Assert.Single(Directory.EnumerateFiles(Path.GetDirectoryName(copy)!, "*packed*").Select(Path.GetFileName)));
    }

    [Fact]
    public async Task A_copy_of_another_state_of_the_model_is_written_anew()
    {
        string path = Take(Small), copy = path + ".packed-cpu";
        await RunAsync(path, Cached, new PackedCopy(copy, PackedCopyUse.Written, ""));
        File.SetLastWriteTimeUtc(path, DateTime.UtcNow.AddHours(-1));
        await RefusedAsync(path, "have changed");

        // The same length and time, and other values.
        DateTime time = File.GetLastWriteTimeUtc(path);
        using (GgufFile file = GgufFile.Open(path))
        using (FileStream stream = new(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            Assert.True(file.TryGetTensor("blk.0.ffn_up.weight", out GgufTensor? tensor));
            stream.Position = tensor.Offset + tensor.ByteLength - 1;
            stream.WriteByte(0x5a);
        }

        File.SetLastWriteTimeUtc(path, time);
        await RefusedAsync(path, "have changed");

        // Another model's copy under this one's name.
        string other = Take("models/stories260K/stories260K-f16.gguf");
        await RunAsync(other, Cached, new PackedCopy(other + ".packed-cpu", PackedCopyUse.Written, ""));
        File.Copy(other + ".packed-cpu", copy, overwrite: true);
        await RefusedAsync(path, "is of other files");
    }

    // What is in the file is checked even where its checksums are right.
    [Theory]
    [InlineData("empty", "fewer than its header")]
    [InlineData("cut header", "fewer than its header")]
    [InlineData("cut", "it was cut or changed")]
    [InlineData("longer", "it was cut or changed")]
    [InlineData("magic", "is no file of packed weights")]
    [InlineData("version", "is of version 2")]
    [InlineData("table bit", "its table's checksum is another")]
    [InlineData("identity bit", "its table's checksum is another")]
    [InlineData("table before header", "it was cut or changed")]
    [InlineData("more weights", "its table ends before")]
    [InlineData("fewer weights", "is missing")]
    [InlineData("long name", "its table ends before")]
    [InlineData("encoding", "and the model has")]
    [InlineData("rows", "and the model has")]
    [InlineData("layout", "is not for this device and version")]
    [InlineData("offset", "are not within")]
    [InlineData("far offset", "are not within")]
    [InlineData("negative bytes", "are not within")]
    [InlineData("bytes", "is not for this device and version")]
    [InlineData("order", "are not within")]
    public async Task A_copy_that_is_wrong_is_written_anew(string change, string note)
    {
        string path = Take(Small), copy = path + ".packed-cpu";
        await RunAsync(path, Cached, new PackedCopy(copy, PackedCopyUse.Written, ""));
        byte[] good = File.ReadAllBytes(copy), bytes = [.. good];
        long table = BinaryPrimitives.ReadInt64LittleEndian(good.AsSpan(48));
        int entry = (int)table + 2 + BinaryPrimitives.ReadUInt16LittleEndian(good.AsSpan((int)table));
        bytes = change switch
        {
            "empty" => [],
            "cut header" => bytes[..100],
            "cut" => bytes[..^1],
            "longer" => [.. bytes, 0],
            "magic" => Put(bytes, 0, 1, sign: false),
            "version" => Put(bytes, 8, 2, sign: false),
            "table bit" => Put(bytes, entry + 4, bytes[entry + 4] ^ 1, sign: false, 1),
            "identity bit" => Put(bytes, 16, bytes[16] ^ 1, sign: false, 1),
            "table before header" => Put(bytes, 48, 64, sign: true),
            "more weights" => Put(bytes, 12, BitConverter.ToInt32(bytes, 12) + 1, sign: true, 4),
            "fewer weights" => Put(bytes, 12, 1, sign: true, 4),
            "long name" => Put(bytes, (int)table, ushort.MaxValue, sign: true, 2),
            "encoding" => Put(bytes, entry, (int)WeightEncoding.Q4_1, sign: true, 4),
            "rows" => Put(bytes, entry + 4, 1 << 20, sign: true),
            "layout" => Put(bytes, entry + 24, BitConverter.ToInt64(bytes, entry + 24) + (1 << 16), sign: true),
            "offset" => Put(bytes, entry + 32, BitConverter.ToInt64(bytes, entry + 32) + 32, sign: true),
            "far offset" => Put(bytes, entry + 32, long.MaxValue / 64 * 64, sign: true),
            "negative bytes" => Put(bytes, entry + 40, -64, sign: true),
            "bytes" => Put(bytes, entry + 40, BitConverter.ToInt64(bytes, entry + 40) - 64, sign: true),
            _ => Put(bytes, entry + 48, 128, sign: true),
        };
        File.WriteAllBytes(copy, bytes);
        await RefusedAsync(path, note);
        Assert.Equal(good, File.ReadAllBytes(copy));
    }

    [Fact]
    public async Task Any_changed_byte_of_header_and_table_is_seen_and_of_the_weights_on_request()
    {
        string path = Take(Small), copy = path + ".packed-cpu";
        await RunAsync(path, Cached, new PackedCopy(copy, PackedCopyUse.Written, ""));
        byte[] good = File.ReadAllBytes(copy);
        int table = (int)BinaryPrimitives.ReadInt64LittleEndian(good.AsSpan(48));
        foreach (int at in Enumerable.Range(0, SignedBytes + 32).Where(i => i % 3 == 0).Concat(Enumerable.Range(table, good.Length - table).Where(i => i % 41 == 0)))
        {
            Change(at, 0x40);
            Assert.Throws<ModelFormatException>(() => PackedFile.Open(copy, memoryMap: false).Dispose());
            Change(at, 0);
        }

        Change(table / 2 / 64 * 64, 1);
        using (Model model = await Model.LoadAsync(path, Cached, cancellationToken: TestContext.Current.CancellationToken))
        {
            Assert.Equal(PackedCopyUse.Read, model.PackedCopy!.Use);
        }

        await RefusedAsync(path, "its checksum is another", Cached with { VerifyPacked = true });
        Assert.Equal(good, File.ReadAllBytes(copy));

        void Change(int at, int bits)
        {
            using FileStream stream = new(copy, FileMode.Open, FileAccess.Write);
            stream.Position = at;
            stream.WriteByte((byte)(good[at] ^ bits));
        }
    }

    [Fact]
    public async Task Where_none_can_be_kept_the_model_loads_and_the_note_says_why()
    {
        string path = Take(Small), copy = path + ".packed-cpu";
        Directory.CreateDirectory(copy);
        using (Model model = await Model.LoadAsync(path, Cached, cancellationToken: TestContext.Current.CancellationToken))
        {
            Assert.Equal(PackedCopyUse.None, model.PackedCopy!.Use);
            Assert.Contains("is a folder", model.PackedCopy.Note, StringComparison.Ordinal);
        }

        using (Model model = await Model.LoadAsync(path, Cached with { Device = Backend.Reference }, cancellationToken: TestContext.Current.CancellationToken))
        {
            Assert.Equal(new PackedCopy(copy, PackedCopyUse.None, "the cpu backend alone keeps one"), model.PackedCopy);
        }

        Assert.Contains("free there", Assert.Throws<IOException>(() => PackedCopy.RequireSpace(copy, long.MaxValue)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_load_reports_all_its_bytes_and_what_is_cancelled_leaves_nothing()
    {
        string path = Take(Small), copy = path + ".packed-cpu";
        List<LoadProgress> reports = [];
        using (CancellationTokenSource stop = new())
        {
            // Cancelled while the copy is written.
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => Model.LoadAsync(path, Cached, new Recorder(p => { reports.Add(p); if (p.Tensor == copy) { stop.Cancel(); } }), stop.Token));
        }

        Assert.Equal(copy, reports[^1].Tensor);
        Assert.Equal([Path.GetFileName(path)], Directory.EnumerateFiles(Path.GetDirectoryName(path)!, "stories*").Select(Path.GetFileName));
        foreach (PackedCopyUse use in new[] { PackedCopyUse.Written, PackedCopyUse.Read })
        {
            reports.Clear();
            using Model model = await Model.LoadAsync(path, Cached, new Recorder(reports.Add), TestContext.Current.CancellationToken);
            Assert.Equal(use, model.PackedCopy!.Use);
            Assert.Equal(reports[^1].TotalBytes, reports[^1].Bytes);
            Assert.Single(reports.Select(r => r.TotalBytes).Distinct());
            Assert.Equal(reports.Select(r => r.Bytes).Order(), reports.Select(r => r.Bytes));
        }
    }

    // What is resident of the model's file beside the packed weights, looked at after each tensor.
    [Fact]
    public async Task A_load_never_holds_the_file_twice_over()
    {
        Assert.SkipUnless(OperatingSystem.IsLinux(), "needs /proc/self/smaps");
        string path = _folder["r.gguf"], copy = path + ".packed-cpu";
        RandomModel.Write(path, new RandomModelShape("r", "llama", 2, 512, 8, 8, 2_048, 512, 2_048, 10_000, 1e-5f, false), TensorType.Q8_0, seed: 1);
        long size = new FileInfo(path).Length;
        Assert.InRange(size, 8 << 20, 16 << 20);
        foreach (PackedCopyUse use in new[] { PackedCopyUse.Written, PackedCopyUse.Read })
        {
            List<(bool Mapped, long Resident)> seen = [];
            using Model model = await Model.LoadAsync(path, Cached, new Recorder(_ => seen.Add((IsMapped(path), Resident(path)))), TestContext.Current.CancellationToken);
            Assert.Equal(use, model.PackedCopy!.Use);
            Assert.All(seen, s => Assert.Equal((true, 0), s));
            Assert.InRange((long)model.WeightBytes, size / 2, size * 11 / 10);

            // The copy's weights are the mapped file, and nothing else.
            Assert.Equal(use == PackedCopyUse.Read, IsMapped(copy));
        }
    }

    private static long Resident(string path)
    {
        long kibibytes = 0;
        bool inside = false;
        foreach (string line in File.ReadLines("/proc/self/smaps"))
        {
            if (line[0] is (>= '0' and <= '9') or (>= 'a' and <= 'f'))
            {
                inside = line.EndsWith(path, StringComparison.Ordinal);
            }
            else if (inside && line.StartsWith("Rss:", StringComparison.Ordinal))
            {
                kibibytes += long.Parse(line[4..^2], NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture);
            }
        }

        return kibibytes * 1024;
    }

    private static bool IsMapped(string path) => File.ReadLines("/proc/self/maps").Any(l => l.EndsWith(path, StringComparison.Ordinal));

    private static byte[] Put(byte[] file, int at, long value, bool sign, int bytes = 8)
    {
        BitConverter.GetBytes(value).AsSpan(0, bytes).CopyTo(file.AsSpan(at));
        if (sign)
        {
            int table = (int)BinaryPrimitives.ReadInt64LittleEndian(file.AsSpan(48));
            SHA256.HashData([.. file[..SignedBytes], .. file[table..]]).CopyTo(file.AsSpan(SignedBytes));
        }

        return file;
    }

    private static async Task RefusedAsync(string path, string note, ModelOptions? options = null)
    {
        using (Model model = await Model.LoadAsync(path, options ?? Cached, cancellationToken: TestContext.Current.CancellationToken))
        {
            Assert.Equal(PackedCopyUse.Written, model.PackedCopy!.Use);
            Assert.Contains(note, model.PackedCopy.Note, StringComparison.Ordinal);
        }

        using Model again = await Model.LoadAsync(path, Cached, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(PackedCopyUse.Read, again.PackedCopy!.Use);
    }

    private static async Task<string> RunAsync(string path, ModelOptions options, PackedCopy? expected)
    {
        using Model model = await Model.LoadAsync(path, options, cancellationToken: TestContext.Current.CancellationToken);
        Assert.Equal(expected, model.PackedCopy);
        List<string> tokens = [];
        await foreach (GeneratedToken t in model.GenerateAsync("Once upon a time", new SamplingParameters { MaxTokens = 12, LogProbs = 1, IgnoreEndOfSequence = true }, TestContext.Current.CancellationToken))
        {
            tokens.Add(string.Create(CultureInfo.InvariantCulture, $"{t.Id} {t.LogProb:R}"));
        }

        Assert.Equal(12, tokens.Count);
        return string.Join(", ", tokens);
    }

    // A model of the shared folder in the test's own.
    private string Take(string name)
    {
        string from = SharedData.PathOf(name.Split('/')), to = _folder[Path.GetFileName(name)];
        if (!Directory.Exists(from))
        {
            File.Copy(from, to);
            File.SetAttributes(to, FileAttributes.Normal); // tests change it
            return to;
        }

        Directory.CreateDirectory(to);
        foreach (string file in Directory.EnumerateFiles(from))
        {
            File.Copy(file, Path.Combine(to, Path.GetFileName(file)));
        }

        return to;
    }

    private sealed class Recorder(Action<LoadProgress> act) : IProgress<LoadProgress>
    {
        public void Report(LoadProgress value) => act(value);
    }
}
