using System.Text;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

public class TokenizerFolderHostileTests
{
    private const string Pair = """{"added_tokens":[{"id":5,"content":"<s>","special":true,"lstrip":true}],"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"a+|\\p{L}"},"behavior":"Isolated","invert":false},"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<s>":{"id":"<s>","ids":[5],"tokens":["<s>"]}}},"decoder":{"type":"ByteFallback"},"model":{"type":"BPE","unk_token":"c","fuse_unk":true,"byte_fallback":true,"vocab":{"a":0,"b":1,"c":2,"ab":3,"▁":4},"merges":["a b"]}}""";

    private const string Words = "[UNK]\n[CLS]\n[SEP]\n##b\na\nab\n";
    private const string Config = """{"add_bos_token":true,"bos_token":{"content":"[CLS]"},"eos_token":"[SEP]","added_tokens_decoder":{"6":{"content":"<s>","special":true,"rstrip":true}},"do_lower_case":false,"strip_accents":null}""";
    private const string Vocabulary = """{"a":0,"b":1,"ab":2,"\u0120":3,"aab":4}""";
    private const string Merges = "#version: 0.2\na b\na ab\n";

    private static readonly Dictionary<string, (string Json, string Says)> Malformed = new()
    {
        ["no object"] = ("[]", "an object is expected"),
        ["no model"] = ("{}", "model: is missing"),
        ["no vocabulary"] = ("""{"model":{"type":"BPE"}}""", "model.vocab: is missing"),
        ["an empty vocabulary"] = ("""{"model":{"type":"BPE","vocab":{},"merges":[]}}""", "has no tokens"),
        ["a negative id"] = ("""{"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}}""", "-1"),
        ["an id of 2^31"] = ("""{"model":{"type":"BPE","vocab":{"a":2147483648},"merges":[]}}""", "2,147,483,648"),
        ["an id that is a text"] = ("""{"model":{"type":"BPE","vocab":{"a":"0"},"merges":[]}}""", "an integer is expected"),
        ["an id far away"] = ("""{"model":{"type":"BPE","vocab":{"a":0,"b":2000000},"merges":[]}}""", "ids up to 2,000,000"),
        ["an id twice"] = ("""{"model":{"type":"BPE","vocab":{"a":0,"b":0},"merges":[]}}""", "id 0"),
        ["a token twice"] = ("""{"model":{"type":"BPE","vocab":{"a":0,"a":1},"merges":[]}}""", "not the JSON"),
        ["an added token in another's place"] = ("""{"added_tokens":[{"id":0,"content":"x"}],"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "added_tokens[0]"),
        ["no merges"] = ("""{"model":{"type":"BPE","vocab":{"a":0}}}""", "model.merges: is missing"),
        ["a merge of what is no token"] = ("""{"model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}""", "'b'"),
        ["a merge to what is no token"] = ("""{"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a","b"]]}}""", "'ab'"),
        ["a merge of three"] = ("""{"model":{"type":"BPE","vocab":{"a":0},"merges":[["a","a","a"]]}}""", "model.merges[0]"),
        ["a merge that is a number"] = ("""{"model":{"type":"BPE","vocab":{"a":0},"merges":[7]}}""", "model.merges[0]"),
        ["a model of the future"] = ("""{"model":{"type":"Quantum","vocab":{}}}""", "'Quantum'"),
        ["a normalizer of the future"] = ("""{"normalizer":{"type":"Sparkle"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "normalizer: is of type 'Sparkle'"),
        ["a pre-tokenizer of the future"] = ("""{"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"X"}]},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "pre_tokenizer.pretokenizers[0]"),
        ["a decoder of the future"] = ("""{"decoder":{"type":"X"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "decoder: is of type 'X'"),
        ["a post-processor of the future"] = ("""{"post_processor":{"type":"X"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "post_processor: is of type 'X'"),
        ["a template of what is no token"] = ("""{"post_processor":{"type":"BertProcessing","sep":["x",9],"cls":["y",0]},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "post_processor.sep[1]"),
        ["an expression that is malformed"] = ("""{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},"behavior":"Isolated"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "lacks a ')'"),
        ["a behavior of the future"] = ("""{"pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"X"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "pre_tokenizer.behavior"),
        ["a character map that is cut"] = ("""{"normalizer":{"type":"Precompiled","precompiled_charsmap":"/////w=="},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "precompiled_charsmap"),
        ["a character map that is no Base64"] = ("""{"normalizer":{"type":"Precompiled","precompiled_charsmap":"?"},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""", "Base64"),
        ["a score that is no number"] = ("""{"model":{"type":"Unigram","vocab":[["a","b"]]}}""", "a finite number"),
        ["a score of 1e999"] = ("""{"model":{"type":"Unigram","vocab":[["a",1e999]]}}""", "a finite number"),
        ["an unknown id out of range"] = ("""{"model":{"type":"Unigram","unk_id":4,"vocab":[["a",0]]}}""", "model.unk_id"),
        ["a lone surrogate"] = ("""{"model":{"type":"BPE","vocab":{"\ud800":0},"merges":[]}}""", "Unicode"),
        ["normalizers nested too deep"] = (Nest("""{"type":"Sequence","normalizers":[""", "]}", 30), "nests"),
        ["JSON nested too deep"] = (new string('[', 10_000), "not the JSON"),
    };

    public static TheoryData<string> Names() => [.. Malformed.Keys];

    [Theory, MemberData(nameof(Names))]
    public void A_malformed_file_is_refused_and_named(string what)
    {
        using TempFolder folder = new();
        (string json, string says) = Malformed[what];
        File.WriteAllText(folder["tokenizer.json"], json);
        Exception error = Assert.ThrowsAny<SluiceModelException>(() => Tokenizer.FromFolder(folder["."]));
        Assert.Contains("tokenizer.json: ", error.Message);
        Assert.Contains(says, error.Message);
    }

    [Theory]
    [InlineData("tokenizer_config.json", "[]"), InlineData("tokenizer_config.json", """{"bos_token":7}"""), InlineData("tokenizer_config.json", """{"added_tokens_decoder":{"x":{"content":"y"}}}""")]
    [InlineData("tokenizer_config.json", """{"add_bos_token":"yes","bos_token":"a"}"""), InlineData("special_tokens_map.json", """{"eos_token":{}}"""), InlineData("generation_config.json", """{"eos_token_id":"a"}"""), InlineData("config.json", "{")]
    public void A_malformed_file_beside_it_is_refused_and_named(string name, string json)
    {
        using TempFolder folder = new();
        File.WriteAllText(folder["tokenizer.json"], Pair);
        File.WriteAllText(folder[name], json);
        Assert.Contains(name + ": ", Assert.ThrowsAny<SluiceModelException>(() => Tokenizer.FromFolder(folder["."])).Message);
    }

    [Fact]
    public void A_folder_without_a_tokenizer_is_refused()
    {
        using TempFolder folder = new();
        Assert.Throws<FileNotFoundException>(() => Tokenizer.FromFolder(folder["."]));
        File.WriteAllText(folder["vocab.json"], """{"a":0}""");
        File.WriteAllText(folder["merges.txt"], "#version: 0.2\na\n");
        Assert.Contains("merge 0", Assert.Throws<ModelFormatException>(() => Tokenizer.FromFolder(folder["."])).Message);
        File.WriteAllText(folder["tokenizer_config.json"], """{"tokenizer_class":"QuantumTokenizer"}""");
        Assert.Contains("QuantumTokenizer", Assert.Throws<UnsupportedModelException>(() => Tokenizer.FromFolder(folder["."])).Message);
    }

    [Fact]
    public void A_file_cut_anywhere_is_refused()
    {
        using TempFolder folder = new();
        byte[] whole = Encoding.UTF8.GetBytes(Pair);
        File.WriteAllBytes(folder["tokenizer.json"], whole);
        Assert.Equal([5, 0, 1, 2], Tokenizer.FromFolder(folder["."]).Encode("abé"));
        for (int cut = whole.Length - 1; cut >= 0; cut--)
        {
            File.WriteAllBytes(folder["tokenizer.json"], whole[..cut]);
            Assert.ThrowsAny<SluiceModelException>(() => Tokenizer.FromFolder(folder["."]));
        }
    }

    // Which file of a folder is changed; what stands beside it; and what the folder is without it.
    [Theory]
    [InlineData("tokenizer.json", 5), InlineData("tokenizer_config.json", 6), InlineData("vocab.json", 7), InlineData("merges.txt", 8), InlineData("vocab.txt", 9)]
    public void A_file_with_changed_bytes_loads_or_is_refused(string name, int seed)
    {
        using TempFolder folder = new();
        Dictionary<string, string> files = name switch
        {
            "tokenizer.json" => new() { [name] = Pair },
            "vocab.txt" => new() { [name] = Words },
            "tokenizer_config.json" => new() { [name] = Config, ["vocab.txt"] = Words },
            _ => new() { ["vocab.json"] = Vocabulary, ["merges.txt"] = Merges },
        };
        foreach ((string file, string text) in files)
        {
            File.WriteAllText(folder[file], text);
        }

        byte[] good = Encoding.UTF8.GetBytes(files[name]);
        string path = folder[name];
        string root = Path.GetDirectoryName(path)!;
        int refused = Fuzz.Flip(good, good.Length, seed, bad =>
        {
            Fuzz.Write(path, bad);
            Tokenizer tokenizer = Tokenizer.FromFolder(root);
            int[] ids = tokenizer.Encode("ab <s> aab é", parseSpecial: true);
            foreach (int id in ids)
            {
                Assert.InRange(id, 0, tokenizer.VocabularySize - 1);
            }

            _ = tokenizer.Decode(ids);
        });
        // What is flipped in a list of texts is mostly another list of texts.
        Assert.InRange(refused, name == "vocab.txt" ? 0 : Fuzz.Rounds / 4, Fuzz.Rounds - 1);
    }

    private static string Nest(string open, string close, int times) =>
        $$$"""{"normalizer":{{{string.Concat(Enumerable.Repeat(open, times))}}}{{{string.Concat(Enumerable.Repeat(close, times))}}},"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}""";
}
