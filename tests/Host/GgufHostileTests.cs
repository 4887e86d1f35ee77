using Sluice.Loading;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

public class GgufHostileTests
{
    private const uint F32 = 0;

    private static readonly Dictionary<string, (RawGguf File, string Says)> Malformed = new()
    {
        ["version 1"] = (new(1), "versions 2 and 3"),
        ["big-endian"] = (new(0x03000000), "big-endian"),
        ["more keys than bytes"] = (new(3, 0, 1UL << 60), "metadata count"),
        ["more tensors than bytes"] = (new(3, ulong.MaxValue, 0), "tensor count"),
        ["a key that is missing"] = (new(3, 0, 1), "metadata count"),
        ["a key longer than the file"] = (new RawGguf(3, 0, 1).U64(1UL << 40).Data(64), "metadata key 0"),
        ["a key of length 2^64 - 1"] = (new RawGguf(3, 0, 1).U64(ulong.MaxValue).Data(64), "metadata key 0"),
        ["a key of no letters"] = (new RawGguf(3, 0, 1).KeyU32("", 1).Data(64), "is empty"),
        ["a key that is not UTF-8"] = (new RawGguf(3, 0, 1).U64(2).Raw(0xC3, 0x28).U32(4).U32(1).Data(64), "not UTF-8"),
        ["a key twice"] = (new RawGguf(3, 0, 2).KeyU32("k", 1).KeyU32("k", 2), "twice"),
        ["a type that is not known"] = (new RawGguf(3, 0, 1).Text("k").U32(13).U64(0), "value type 13"),
        ["a boolean of 2"] = (new RawGguf(3, 0, 1).Text("k").U32(7).U8(2), "boolean of value 2"),
        ["a string longer than the file"] = (new RawGguf(3, 0, 1).Text("k").U32(8).U64(1UL << 50), "'k'"),
        ["an array longer than the file"] = (new RawGguf(3, 0, 1).Text("k").U32(9).U32(4).U64(1UL << 62), "array of"),
        ["an array of 2^64 - 1 strings"] = (new RawGguf(3, 0, 1).Text("k").U32(9).U32(8).U64(ulong.MaxValue), "array of"),
        ["an array whose count times size is 2^64"] = (new RawGguf(3, 0, 1).Text("k").U32(9).U32(10).U64(1UL << 61), "array of"),
        ["arrays nested too deep"] = (new RawGguf(3, 0, 1).Text("k").U32(9).U32(9).U64(1).U32(9).U64(1).U32(9).U64(1).U32(9).U64(1).U32(9).U64(1).U32(4).U64(0).Data(64), "nests"),
        ["an alignment of 0"] = (new RawGguf(3, 0, 1).KeyU32("general.alignment", 0), "power of two"),
        ["an alignment of 12"] = (new RawGguf(3, 0, 1).KeyU32("general.alignment", 12), "power of two"),
        ["an alignment of 2^31"] = (new RawGguf(3, 0, 1).KeyU32("general.alignment", 1u << 31), "power of two"),
        ["an alignment that is a string"] = (new RawGguf(3, 0, 1).Text("general.alignment").U32(8).Text("32"), "must be UInt32"),
        ["a tensor of no dimensions"] = (new RawGguf(3, 1).Tensor("t", F32, 0).Data(64), "0 dimensions"),
        ["a tensor of five dimensions"] = (new RawGguf(3, 1).Tensor("t", F32, 0, 1, 1, 1, 1, 1).Data(64), "5 dimensions"),
        ["a dimension of 0"] = (new RawGguf(3, 1).Tensor("t", F32, 0, 4, 0).Data(64), "dimension 1 is 0"),
        ["a dimension of 2^63"] = (new RawGguf(3, 1).Tensor("t", F32, 0, 1UL << 63).Data(64), "dimension 0"),
        ["a shape of 2^64 values"] = (new RawGguf(3, 1).Tensor("t", F32, 0, 1UL << 32, 1UL << 32).Data(64), "63 bits"),
        ["a shape of 2^62 floats"] = (new RawGguf(3, 1).Tensor("t", F32, 0, 1UL << 31, 1UL << 31).Data(64), "needs"),
        ["a tensor longer than the file"] = (new RawGguf(3, 1).Tensor("t", F32, 0, 17).Data(64), "64 left"),
        ["a tensor that begins behind the end"] = (new RawGguf(3, 1).Tensor("t", F32, 96, 1).Data(64), "0 left"),
        ["a tensor at 2^64 - 32"] = (new RawGguf(3, 1).Tensor("t", F32, unchecked((ulong)-32), 1).Data(64), "begins"),
        ["a tensor off its alignment"] = (new RawGguf(3, 1).Tensor("t", F32, 4, 1).Data(64), "multiple of the alignment"),
        ["a row of no whole blocks"] = (new RawGguf(3, 1).Tensor("t", 2, 0, 33).Data(64), "blocks of 32"),
        ["a type of no meaning"] = (new RawGguf(3, 1).Tensor("t", 4, 0, 32).Data(64), "type number 4"),
        ["a type of the future"] = (new RawGguf(3, 1).Tensor("t", 0xFFFFFFFF, 0, 32).Data(64), "type number"),
        ["two tensors of one name"] = (new RawGguf(3, 2).Tensor("t", F32, 0, 1).Tensor("t", F32, 32, 1).Data(64), "twice"),
        ["two tensors in one place"] = (new RawGguf(3, 2).Tensor("t", F32, 0, 16).Tensor("u", F32, 32, 1).Data(64), "inside tensor 't'"),
        ["a name of 65 bytes"] = (new RawGguf(3, 1).Tensor(new string('n', 65), F32, 0, 1).Data(64), "at most 64"),
    };

    public static TheoryData<string> MalformedNames() => [.. Malformed.Keys];

    [Theory, MemberData(nameof(MalformedNames))]
    public void A_malformed_header_is_refused_and_named(string what)
    {
        using TempFolder folder = new();
        (RawGguf file, string says) = Malformed[what];
        file.Save(folder["bad.gguf"]);
        foreach (bool memoryMap in new[] { true, false })
        {
            Exception error = Assert.ThrowsAny<SluiceModelException>(() => GgufFile.Open(folder["bad.gguf"], memoryMap));
            Assert.StartsWith(folder["bad.gguf"] + ": ", error.Message);
            Assert.Contains(says.Replace("'k'", ": k:"), error.Message);
        }
    }

    [Fact]
    public void What_is_no_gguf_is_refused()
    {
        using TempFolder folder = new();
        File.WriteAllBytes(folder["empty"], []);
        File.WriteAllText(folder["text"], new string('x', 100));
        Assert.Contains("0 bytes", Assert.Throws<ModelFormatException>(() => GgufFile.Open(folder["empty"])).Message);
        Assert.Contains("78787878", Assert.Throws<ModelFormatException>(() => GgufFile.Open(folder["text"])).Message);
    }

    [Theory, InlineData(false), InlineData(true)]
    public void A_file_cut_anywhere_is_refused(bool bytePair)
    {
        using TempFolder folder = new();
        string path = folder["cut.gguf"];
        SmallModel.Llama(bytePair).Save(path);
        Load(path, memoryMap: true);
        long length = new FileInfo(path).Length;
        long lastTensorEnd = length - (-(8 * 4) & 31);
        for (long cut = length - 1; cut >= 0; cut--)
        {
            using (FileStream stream = File.OpenWrite(path))
            {
                stream.SetLength(cut);
            }

            if (cut < lastTensorEnd)
            {
                Assert.ThrowsAny<SluiceModelException>(() => Load(path, cut % 2 == 0));
            }
            else
            {
                Load(path, memoryMap: true);
            }
        }
    }

    [Theory, InlineData(false), InlineData(true)]
    public void A_file_with_changed_bytes_loads_or_is_refused(bool bytePair)
    {
        using TempFolder folder = new();
        string path = folder["flip.gguf"];
        SmallModel.Llama(bytePair).Save(path);
        byte[] good = File.ReadAllBytes(path);
        using GgufFile whole = GgufFile.Open(path);
        int round = 0;
        int refused = Fuzz.Flip(good, (int)whole.DataStart, bytePair ? 1 : 2, bytes =>
        {
            Fuzz.Write(path, bytes);
            Load(path, round++ % 2 == 0);
        });
        Assert.InRange(refused, Fuzz.Rounds / 4, Fuzz.Rounds - 1);
    }

    private static void Load(string path, bool memoryMap)
    {
        using ModelSource file = ModelSource.Open(path, memoryMap);
        ModelConfig config = file.ReadConfig();
        Tokenizer tokenizer = file.ReadTokenizer();
        int[] ids = tokenizer.Encode("ab abc <user>a<s>é", parseSpecial: true);
        _ = tokenizer.Decode(ids);
        Assert.All(ids, id => Assert.InRange(id, 0, config.VocabularySize - 1));
    }
}
