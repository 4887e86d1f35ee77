using System.Diagnostics;
using Sluice.Loading;

namespace Sluice.Tests.Host;

public class SafetensorsTests
{
    private const string Good = """{"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]}}""";

    private static readonly Dictionary<string, (byte[] File, string Says)> Malformed = new()
    {
        ["nothing"] = ([], "0 bytes"),
        ["less than a length"] = (new byte[7], "7 bytes"),
        ["a header of 2^64 - 1 bytes"] = (SmallFolder.Raw("{}", 0, ulong.MaxValue), "18,446,744,073,709,551,615"),
        ["a header of 2^63 bytes"] = (SmallFolder.Raw("{}", 0, 1UL << 63), "header length"),
        ["a header longer than the file"] = (SmallFolder.Raw("{}", 0, 3), "2 bytes left"),
        ["160 bytes that ask for 4 GB"] = (SmallFolder.Raw("{\"a\":{\"dtype\":\"F32\",\"shape\":[1000000000],\"data_offsets\":[0,4000000000]}}".PadRight(152), 0), "the file has 0 bytes of data"),
        ["a header of no bytes"] = (SmallFolder.Raw("", 2), "must be from 2"),
        ["no JSON"] = (SmallFolder.Raw("not json", 0), "not the JSON"),
        ["a list"] = (SmallFolder.Raw("[1]", 0), "no JSON object"),
        ["half an object"] = (SmallFolder.Raw("{\"a\":", 0), "not the JSON"),
        ["two objects"] = (SmallFolder.Raw("{}{}", 0), "not the JSON"),
        ["invalid UTF-8"] = ([.. BitConverter.GetBytes(8UL), .. "{\"\xFF\": 1}"u8[..2], 0xFF, 0xFE, .. "\":1}"u8], "not the JSON"),
        ["a lone surrogate"] = (SmallFolder.Raw("{\"\\ud800\":{}}", 0), "not the JSON"),
        ["deep nesting"] = (SmallFolder.Raw(string.Concat(Enumerable.Repeat("{\"a\":", 5_000)), 0), "holds 'a'"),
        ["deep lists"] = (SmallFolder.Raw("{\"a\":{\"shape\":" + new string('[', 5_000), 0), "something else than integers"),
        ["a tensor that is a number"] = (SmallFolder.Raw("""{"a":1}""", 0), "an object is expected"),
        ["no name"] = (SmallFolder.Raw("""{"":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", 4), "without a name"),
        ["no dtype"] = (SmallFolder.Raw("""{"a":{"shape":[1],"data_offsets":[0,4]}}""", 4), "needs dtype"),
        ["no offsets"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[1]}}""", 4), "needs dtype"),
        ["one offset"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}}""", 4), "two data_offsets"),
        ["three offsets"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}}""", 4), "more than 2"),
        ["a field of another name"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","size":[1],"data_offsets":[0,4]}}""", 4), "holds 'size'"),
        ["a field twice"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","dtype":"F16","shape":[1],"data_offsets":[0,4]}}""", 4), "'dtype' twice"),
        ["a tensor twice"] = (SmallFolder.Raw("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}""", 2), "stands twice"),
        ["metadata twice"] = (SmallFolder.Raw("""{"__metadata__":{},"__metadata__":{}}""", 0), "stands twice"),
        ["metadata that is no text"] = (SmallFolder.Raw("""{"__metadata__":{"a":1}}""", 0), "a text is expected"),
        ["too much metadata"] = (SmallFolder.Raw("{\"__metadata__\":{" + string.Join(",", Enumerable.Range(0, 70_000).Select(i => $"\"{i}\":\"\"")) + "}}", 0), "more than 65,536 entries"),
        ["a text of 5 MB"] = (SmallFolder.Raw("{\"__metadata__\":{\"a\":\"" + new string('x', 5_000_000) + "\"}}", 0), "a text of 5,000,000 bytes"),
        ["an unknown dtype"] = (SmallFolder.Raw("""{"a":{"dtype":"F13","shape":[1],"data_offsets":[0,4]}}""", 4), "'F13' is not known"),
        ["a dimension of 0"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[4,0],"data_offsets":[0,0]}}""", 0), "dimension of 0"),
        ["a negative dimension"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}""", 4), "integers from 0"),
        ["half a dimension"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}""", 4), "integers from 0"),
        ["a dimension of 2^63"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,4]}}""", 4), "integers from 0"),
        ["a shape of 2^64 values"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}""", 4), "63 bits"),
        ["a shape of 2^62 floats"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[2147483648,2147483648],"data_offsets":[0,4]}}""", 4), "data_offsets span 4"),
        ["nine dimensions"] = (SmallFolder.Raw("""{"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}}""", 1), "more than 8"),
        ["offsets the wrong way round"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}""", 4), "4 to 0"),
        ["offsets behind the end"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", 4), "4 to 8"),
        ["offsets of 2^63 - 1"] = (SmallFolder.Raw("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]}}""", 4), "the file has 4 bytes"),
        ["less than the shape needs"] = (SmallFolder.Raw("""{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}""", 4), "needs 8 bytes"),
        ["two tensors in one place"] = (SmallFolder.Raw("""{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}""", 6), "neither overlap nor"),
        ["a gap"] = (SmallFolder.Raw("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}""", 3), "nor leave gaps"),
        ["bytes behind the last tensor"] = (SmallFolder.Raw("""{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}""", 2), "the last tensor ends"),
        ["half a byte"] = (SmallFolder.Raw("""{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}""", 1), "needs 2 bytes"),
    };

    public static TheoryData<string> MalformedNames() => [.. Malformed.Keys];

    [Theory, MemberData(nameof(MalformedNames))]
    public void A_malformed_file_is_refused_and_named(string what)
    {
        using TempFolder folder = new();
        string path = folder["bad.safetensors"];
        File.WriteAllBytes(path, Malformed[what].File);
        foreach (bool memoryMap in new[] { true, false })
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            SluiceModelException error = Assert.ThrowsAny<SluiceModelException>(() => SafetensorsFile.Open(path, memoryMap));
            Assert.Contains(Malformed[what].Says, error.Message);
            Assert.StartsWith(path, error.Message);
            Assert.True(GC.GetAllocatedBytesForCurrentThread() - before < (Malformed[what].File.Length < 1 << 16 ? 1 << 20 : Malformed[what].File.Length + (16 << 20)));
        }
    }

    [Fact]
    public void A_file_is_read_back()
    {
        using TempFolder folder = new();
        File.WriteAllBytes(folder["a.safetensors"], SmallFolder.Raw(Good, 32));
        using SafetensorsFile file = SafetensorsFile.Open(folder["a.safetensors"]);
        Assert.Equal(["a", "b"], file.Tensors.Select(t => t.Name));
        Assert.True(file.TryGetTensor("b", out SafetensorsTensor? b));
        Assert.Equal(("BF16", 8L, 8L + Good.Length + 24), (b.DType, b.ByteLength, b.Offset));
        byte[] bytes = new byte[8];
        file.Read(b, 0, bytes);
        Assert.Throws<ArgumentOutOfRangeException>(() => file.Read(b, 1, bytes));
    }

    [Fact]
    public void What_the_writer_writes_the_reader_reads()
    {
        using TempFolder folder = new();
        using (FileStream stream = File.Create(folder["w.safetensors"]))
        {
            SafetensorsWriter writer = new(stream);
            writer.AddMetadata("format", "pt");
            writer.AddTensor("é", "I32", 3);
            writer.AddTensor("one", "F16");
            Assert.Throws<ArgumentException>(() => writer.AddTensor("one", "F16", 2));
            Assert.Throws<ArgumentException>(() => writer.AddTensor("two", "F4", 2));
            Assert.Throws<ArgumentOutOfRangeException>(() => writer.AddTensor("two", "F16", 0));
            writer.Write([1, 0, 0, 0, 2, 0, 0, 0, 3, 0]);
            Assert.Throws<InvalidOperationException>(() => writer.AddTensor("two", "F16", 2));
            Assert.Throws<InvalidOperationException>(writer.Finish);
            Assert.Throws<InvalidOperationException>(() => writer.Write(new byte[5]));
            writer.Write([0, 0, 7, 8]);
            writer.Finish();
        }

        using SafetensorsFile file = SafetensorsFile.Open(folder["w.safetensors"]);
        Assert.Equal("pt", file.Metadata["format"]);
        Assert.Equal(0, file.Tensors[0].Offset % 8);
        byte[] values = new byte[12];
        file.Read(file.Tensors[0], 0, values);
        Assert.Equal([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0], values);
        file.Read(file.Tensors[1], 0, values.AsSpan(0, 2));
        Assert.Equal([7, 8], values[..2]);
    }

    [Fact]
    public void A_file_cut_anywhere_is_refused()
    {
        using TempFolder folder = new();
        byte[] good = SmallFolder.Raw(Good, 32);
        for (int length = 0; length < good.Length; length++)
        {
            Fuzz.Write(folder["cut"], good.AsSpan(0, length));
            Assert.ThrowsAny<SluiceModelException>(() => SafetensorsFile.Open(folder["cut"], length % 2 == 0));
        }
    }

    [Fact]
    public void A_file_with_changed_bytes_loads_or_is_refused()
    {
        using TempFolder folder = new();
        byte[] good = SmallFolder.Raw(Good, 32);
        int refused = Fuzz.Flip(good, good.Length - 32, 5, bytes =>
        {
            Fuzz.Write(folder["flip"], bytes);
            using SafetensorsFile file = SafetensorsFile.Open(folder["flip"], memoryMap: false);
            foreach (SafetensorsTensor tensor in file.Tensors)
            {
                file.Read(tensor, 0, new byte[tensor.ByteLength]);
            }
        });
        Assert.InRange(refused, Fuzz.Rounds / 2, Fuzz.Rounds - 1);
    }
}
