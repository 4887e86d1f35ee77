using System.Text;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

/// <summary>SentencePiece's own files (tokenizer.model), made by hand in Protocol Buffers' wire format.</summary>
public class TokenizerModelFileTests
{
    private const int Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Byte = 6;

    [Fact]
    public void A_pair_model_merges_by_score_and_spells_the_rest_in_bytes()
    {
        using TempFolder folder = new();
        Tokenizer tokenizer = Load(folder, Pair(Bytes()), Normalizer(extraSpaces: false));
        Assert.Equal(("llama", 1, 2, 0, true), (tokenizer.Model, tokenizer.BosId!.Value, tokenizer.EosId!.Value, tokenizer.UnknownId!.Value, tokenizer.AddsBos));
        Assert.Equal([1, 263, 263, 259, 3 + 0xC3, 3 + 0xA9, 262], tokenizer.Encode("ab ab éab"));
        Assert.Equal(" ab é", tokenizer.Decode(tokenizer.Encode("ab é", addSpecial: false)));
    }

    [Fact]
    public void What_is_typed_never_becomes_a_control_token()
    {
        using TempFolder folder = new();
        byte[] pieces = [.. Pair(Bytes()), .. Piece("<", -1, Normal), .. Piece("s>", -2, Normal), .. Piece("s", -3, Normal), .. Piece(">", -4, Normal)];
        Tokenizer tokenizer = Load(folder, pieces, Normalizer(dummyPrefix: false, extraSpaces: false));
        Assert.Equal(["<", "s>"], tokenizer.Encode("<s>", addSpecial: false).Select(tokenizer.NameOf));
        Assert.Equal([1], tokenizer.Encode("<s>", addSpecial: false, parseSpecial: true));
    }

    [Theory]
    [InlineData(true, true, "  a  b ", "▁a ▁b")]
    [InlineData(true, false, " a b", "▁ ▁a ▁b")]
    [InlineData(false, true, "  a  b ", "a ▁b")]
    [InlineData(false, false, "a b", "a ▁b")]
    [InlineData(true, true, "xyz a", "▁ <unk> ▁a")]
    [InlineData(true, true, "a<tag>a", "▁a <tag> a")]
    public void Blanks_are_treated_as_the_normalizer_says(bool dummyPrefix, bool extraSpaces, string text, string expected)
    {
        using TempFolder folder = new();
        byte[] pieces = [.. Specials(), .. Piece("▁", -3, Normal), .. Piece("a", -4, Normal), .. Piece("▁a", -1, Normal), .. Piece("▁b", -2, Normal), .. Piece("<tag>", 0, UserDefined)];
        Tokenizer tokenizer = Load(folder, [.. pieces, .. Message(2, Integer(3, 1))], Normalizer(dummyPrefix, extraSpaces));
        Assert.Equal("t5", tokenizer.Model);
        Assert.Equal(expected.Split(' '), tokenizer.Encode(text, addSpecial: false).Select(tokenizer.NameOf));
        Assert.Equal(2, tokenizer.Encode(text)[^1]);
    }

    [Fact]
    public void Tokens_beside_the_model_are_added()
    {
        using TempFolder folder = new();
        byte[] pieces = Pair(Bytes());
        File.WriteAllText(folder["added_tokens.json"], """{"<|im_end|>":300}""");
        File.WriteAllText(folder["tokenizer_config.json"], """{"add_bos_token":false,"eos_token":"<|im_end|>","added_tokens_decoder":{"264":{"content":"<pad>","special":true}},"pad_token":"<pad>"}""");
        Tokenizer tokenizer = Load(folder, pieces, Normalizer(extraSpaces: false));
        Assert.Equal((301, 300, TokenKind.Control, TokenKind.Control, false), (tokenizer.VocabularySize, tokenizer.EosId!.Value, tokenizer.KindOf(264), tokenizer.KindOf(300), tokenizer.AddsBos));
        Assert.Equal([263, 300], tokenizer.Encode("ab<|im_end|>", parseSpecial: true));
    }

    [Theory]
    [InlineData("", "pieces: are missing"), InlineData("0A05", "field 1 of 5 bytes, and 0 are left"), InlineData("0AFFFFFFFF0F", "4,294,967,295 bytes"), InlineData("0AFFFFFFFFFFFFFFFFFF01", "18,446,744,073,709,551,615 bytes")]
    [InlineData("0AFFFFFFFFFFFFFFFFFFFF01", "64 bits"), InlineData("0B", "tag 11"), InlineData("00", "tag 0"), InlineData("0801", "of kind Varint"), InlineData("0A0415000000", "pieces[0]"), InlineData("0A03800101", "is empty")]
    [InlineData("0A030A01FF", "not UTF-8"), InlineData("0A080A0161150000C07F", "the score"), InlineData("0A050A01611807", "the type 7"), InlineData("0A050A01611801", "none of type unknown")]
    [InlineData("0A050A016118020A050A01621802", "pieces[1]: is of type unknown"), InlineData("0A050A016118020A050A01621806", "form like <0x0A>"), InlineData("0A050A0161180212021803", "model_type: is 3")]
    [InlineData("0A050A0161180212042A00C801", "ends within"), InlineData("0A050A0161180212 03D80264", "pad_id: is 100"), InlineData("0A050A016118021A051203000000", "precompiled_charsmap"), InlineData("0A050A016118021A022800", "escape_whitespaces")]
    [InlineData("0A050A0161180212 03C00101", "treat_whitespace_as_suffix"), InlineData("4943413D20300A", "tiktoken")]
    public void A_malformed_file_is_refused_and_named(string hex, string says)
    {
        using TempFolder folder = new();
        File.WriteAllBytes(folder["tokenizer.model"], Convert.FromHexString(hex.Replace(" ", "", StringComparison.Ordinal)));
        Exception error = Assert.ThrowsAny<SluiceModelException>(() => Tokenizer.FromFolder(folder["."]));
        Assert.Contains("tokenizer.model: ", error.Message);
        Assert.Contains(says, error.Message);
    }

    [Theory, InlineData(1), InlineData(2)]
    public void A_file_cut_anywhere_or_with_changed_bytes_loads_or_is_refused(int kind)
    {
        using TempFolder folder = new();
        string path = folder["tokenizer.model"];
        string root = Path.GetDirectoryName(path)!;
        byte[] good = [.. Specials(), .. Piece("▁", -3, Normal), .. Piece("a", -4, Normal), .. Piece("▁a", -1, Normal), .. Piece("<tag>", 0, UserDefined), .. Message(2, Integer(3, kind)), .. Message(3, [.. Field(2, [4, 0, 0, 0, 0, 4, 0, 0, 65, 0]), .. Integer(3, 1)])];
        for (int length = 0; length < good.Length; length++)
        {
            Fuzz.Write(path, good.AsSpan(0, length));
            try
            {
                Use(root);
            }
            catch (SluiceModelException)
            {
            }
        }

        int refused = Fuzz.Flip(good, good.Length, 17 + kind, bytes =>
        {
            Fuzz.Write(path, bytes);
            Use(root);
        });
        Assert.InRange(refused, Fuzz.Rounds / 4, Fuzz.Rounds - 1);
    }

    private static void Use(string folder)
    {
        Tokenizer tokenizer = Tokenizer.FromFolder(folder);
        int[] ids = tokenizer.Encode("a <tag>  aé", parseSpecial: true);
        foreach (int id in ids)
        {
            Assert.InRange(id, 0, tokenizer.VocabularySize - 1);
        }

        _ = tokenizer.Decode(ids);
    }

    private static Tokenizer Load(TempFolder folder, byte[] pieces, byte[] normalizer)
    {
        File.WriteAllBytes(folder["tokenizer.model"], [.. pieces, .. normalizer]);
        return Tokenizer.FromFolder(folder["."]);
    }

    // 0 to 2 specials, 3 to 258 bytes, then a b ▁ ab ▁ab from 259 on, in BPE with bytes.
    private static byte[] Pair(byte[] bytes) =>
        [.. Specials(), .. bytes, .. Piece("▁", -9, Normal), .. Piece("a", -8, Normal), .. Piece("b", -7, Normal), .. Piece("ab", -1, Normal), .. Piece("▁ab", -2, Normal), .. Message(2, [.. Integer(3, 2), .. Integer(35, 1)])];

    private static byte[] Specials() => [.. Piece("<unk>", 0, Unknown), .. Piece("<s>", 0, Control), .. Piece("</s>", 0, Control)];

    private static byte[] Bytes() => [.. Enumerable.Range(0, 256).SelectMany(value => Piece($"<0x{value:X2}>", 0, Byte))];

    private static byte[] Normalizer(bool dummyPrefix = true, bool extraSpaces = true) => Message(3, [.. Integer(3, dummyPrefix ? 1 : 0), .. Integer(4, extraSpaces ? 1 : 0)]);

    private static byte[] Piece(string text, float score, int kind) => Message(1, [.. Field(1, Encoding.UTF8.GetBytes(text)), .. (byte[])[0x15, .. BitConverter.GetBytes(score)], .. Integer(3, kind)]);

    private static byte[] Message(int field, byte[] content) => Field(field, content);

    private static byte[] Field(int field, byte[] content) => [.. Varint((uint)(field << 3) | 2), .. Varint((uint)content.Length), .. content];

    private static byte[] Integer(int field, int value) => [.. Varint((uint)field << 3), .. Varint((uint)value)];

    private static byte[] Varint(uint value)
    {
        List<byte> bytes = [];
        for (; value > 127; value >>= 7)
        {
            bytes.Add((byte)(value | 128));
        }

        return [.. bytes, (byte)value];
    }
}
