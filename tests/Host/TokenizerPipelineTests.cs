using System.Text.Json;
using System.Text.Json.Nodes;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

public class TokenizerPipelineTests
{
    [Fact]
    public void Pieces_are_those_of_the_reference()
    {
        using TempFolder folder = new();
        foreach (IGrouping<(string Normalizer, string PreTokenizer), (string Normalizer, string PreTokenizer, string Text, string[] Pieces)> parts
            in TokenizerPipelineCases.All.GroupBy(c => (c.Normalizer, c.PreTokenizer)))
        {
            // A word a piece, so that ids tell the pieces.
            string[] words = [.. parts.SelectMany(c => c.Pieces).Distinct()];
            JsonObject vocabulary = new() { ["[UNK]"] = 0 };
            for (int i = 0; i < words.Length; i++)
            {
                vocabulary[words[i]] = i + 1;
            }

            Write(folder, $$$"""{"added_tokens":[],"normalizer":{{{parts.Key.Normalizer}}},"pre_tokenizer":{{{parts.Key.PreTokenizer}}},"model":{"type":"WordLevel","unk_token":"[UNK]","vocab":{{{vocabulary.ToJsonString()}}}}}""");
            Tokenizer tokenizer = Tokenizer.FromFolder(folder["."]);
            foreach ((_, _, string text, string[] pieces) in parts)
            {
                Assert.Equal(pieces, tokenizer.Encode(text).Select(tokenizer.NameOf));
            }
        }
    }

    [Theory, InlineData("tiny-llama-hf", 56), InlineData("tiny-qwen2-hf", 56)]
    public void A_folder_gives_the_ids_of_its_cases(string name, int count)
    {
        string path = SharedData.PathOf("hf", name, "tokenizer.cases.json");
        Tokenizer tokenizer = Tokenizer.FromFolder(Path.GetDirectoryName(path)!);
        using JsonDocument cases = JsonDocument.Parse(File.ReadAllBytes(path));
        Assert.Equal(count, cases.RootElement.GetArrayLength());
        foreach (JsonElement item in cases.RootElement.EnumerateArray())
        {
            Assert.Equal(item.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32()), tokenizer.Encode(item.GetProperty("text").GetString()!));
        }
    }

    [Fact]
    public void A_vocabulary_and_merges_alone_make_a_tokenizer()
    {
        string vectors = SharedData.PathOf("tokenizers", "qwen2", "vectors.inp");
        Tokenizer tokenizer = Tokenizer.FromFolder(Path.GetDirectoryName(vectors)!);
        string[] texts = File.ReadAllText(vectors).Split("\n__ggml_vocab_test__\n");
        string[] lines = File.ReadAllLines(Path.ChangeExtension(vectors, ".out"));
        for (int i = 0; i < lines.Length; i++)
        {
            Assert.Equal(lines[i].Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse), tokenizer.Encode(texts[i], addSpecial: false));
        }

        Assert.Equal(("gpt2", "qwen2"), (tokenizer.Model, tokenizer.Data.PreTokenizer));
        Assert.Null(tokenizer.BosId);
        Assert.True(tokenizer.IsEndOfGeneration(tokenizer.Find("<|im_end|>")!.Value));
    }

    [Fact]
    public void A_folder_keeps_what_the_properties_mean()
    {
        Tokenizer llama = Tokenizer.FromFolder(Path.GetDirectoryName(SharedData.PathOf("hf", "tiny-llama-hf", "tokenizer.json"))!);
        Assert.Equal(("llama", 1, 2, 0), (llama.Model, llama.BosId, llama.EosId, llama.UnknownId));
        Assert.True(llama.AddsBos && !llama.AddsEos && llama.AddsSpacePrefix && llama.IsEndOfGeneration(2));
        Assert.Equal(" the", llama.Decode([llama.Find("▁the")!.Value]));
        Assert.Equal([0x0A], llama.TokenBytes(llama.Find("<0x0A>")!.Value).ToArray());
        Assert.Equal(TokenKind.Byte, llama.KindOf(llama.Find("<0x0A>")!.Value));
        Tokenizer list = Tokenizer.FromFolder(Path.GetDirectoryName(SharedData.PathOf("hf", "tiny-llama-bf16-hf", "tokenizer.json"))!);
        Assert.Equal(llama.Encode("Once upon a time é"), list.Encode("Once upon a time é"));
    }

    [Theory]
    [InlineData("\"lstrip\":true,\"rstrip\":true", "ab  <x>  ab", "ab|  <x>  |ab")]
    [InlineData("\"lstrip\":false,\"rstrip\":false", "ab <x> ab", "ab| |<x>| |ab")]
    [InlineData("\"single_word\":true", "a<x>b <x>", "a|<|x|>|b| |<x>")]
    public void Added_tokens_take_what_their_options_say(string options, string text, string pieces)
    {
        using TempFolder folder = new();
        Write(folder, $$$"""{"added_tokens":[{"id":8,"content":"<x>","special":true,"normalized":false,{{{options}}}}],"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2," ":3,"<":4,"x":5,">":6},"merges":["a b"]}}""");
        Tokenizer tokenizer = Tokenizer.FromFolder(folder["."]);
        Assert.Equal(pieces.Split('|').Select(p => p.Contains("<x>", StringComparison.Ordinal) ? "<x>" : p), tokenizer.Encode(text, parseSpecial: true).Select(tokenizer.NameOf));
        Assert.Equal(TokenKind.Unused, tokenizer.KindOf(7));
    }

    [Theory, InlineData("""{"eos_token_id":[3,5]}"""), InlineData("""{"eos_token_id":[5,-1,3,99]}""")]
    public void Every_end_that_the_generation_config_names_ends(string generation)
    {
        using TempFolder folder = new();
        Write(folder, """{"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"c":3,"d":4,"e":5},"merges":["a b"]}}""");
        File.WriteAllText(folder["generation_config.json"], generation);
        Tokenizer tokenizer = Tokenizer.FromFolder(folder["."]);
        Assert.Equal([3, 5], Enumerable.Range(0, 6).Where(tokenizer.IsEndOfGeneration));
    }

    [Fact]
    public void A_bos_flag_stands_above_the_template()
    {
        using TempFolder folder = new();
        const string Template = """ "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"special_tokens":{"<s>":{"id":"<s>","ids":[2],"tokens":["<s>"]}}} """;
        Write(folder, $$$"""{"added_tokens":[{"id":2,"content":"<s>","special":true},{"id":3,"content":"</s>","special":true}],{{{Template}}},"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}""");
        Assert.Equal([2, 0], Tokenizer.FromFolder(folder["."]).Encode("a"));
        File.WriteAllText(folder["tokenizer_config.json"], """{"bos_token":{"content":"<s>"},"eos_token":"</s>","add_bos_token":false,"add_eos_token":true}""");
        Tokenizer tokenizer = Tokenizer.FromFolder(folder["."]);
        Assert.Equal([0, 3], tokenizer.Encode("a"));
        Assert.True(!tokenizer.AddsBos && tokenizer.AddsEos);
    }

    [Fact]
    public void Unigram_takes_the_likeliest_pieces_and_spells_the_rest()
    {
        using TempFolder folder = new();
        string bytes = string.Join(',', Enumerable.Range(0, 256).Select(b => $"[\"<0x{b:X2}>\",-9]"));
        string Model(bool spell) => $$$"""{"model":{"type":"Unigram","unk_id":0,"byte_fallback":{{{(spell ? "true" : "false")}}},"vocab":[["<unk>",0],["a",-1],["b",-2],["ab",-2.5],["abc",-9],["c",-3],{{{bytes}}}]}}""";
        Write(folder, Model(spell: false));
        Tokenizer tokenizer = Tokenizer.FromFolder(folder["."]);
        Assert.Equal([3, 5, 0, 1], tokenizer.Encode("abcéüa"));
        Write(folder, Model(spell: true));
        Assert.Equal([3, 6 + 0xC3, 6 + 0xA9], Tokenizer.FromFolder(folder["."]).Encode("abé"));
        Assert.Equal("t5", tokenizer.Model);
    }

    [Fact]
    public void A_word_is_its_longest_pieces_or_unknown()
    {
        using TempFolder folder = new();
        File.WriteAllText(folder["vocab.txt"], "[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n##a\naff\n!\n");
        File.WriteAllText(folder["tokenizer_config.json"], """{"cls_token":"[CLS]","sep_token":"[SEP]","unk_token":"[UNK]","do_lower_case":true}""");
        Tokenizer tokenizer = Tokenizer.FromFolder(folder["."]);
        Assert.Equal([2, 4, 5, 6, 9, 1, 8, 3], tokenizer.Encode("UNaffäble! unx AFF".Replace('ä', 'a')));
        Assert.Equal(" unaffable", tokenizer.Decode([4, 5, 6]));
    }

    private static void Write(TempFolder folder, string json) => File.WriteAllText(folder["tokenizer.json"], json);
}
