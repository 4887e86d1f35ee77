using System.Diagnostics;
using System.Text;
using System.Text.Json;
using Sluice.Loading;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

public class TokenizerTests
{
    private static readonly Dictionary<string, Action<SmallModel>> HostileBytePair = new()
    {
        ["no merges"] = m => m.Remove("tokenizer.ggml.merges"),
        ["a merge without a blank"] = m => m.Set("tokenizer.ggml.merges", GgufValue.OfArray(["ab"])),
        ["an empty merge"] = m => m.Set("tokenizer.ggml.merges", GgufValue.OfArray([""])),
        ["a merge of blanks"] = m => m.Set("tokenizer.ggml.merges", GgufValue.OfArray(["   "])),
        ["a merge of an unknown token"] = m => m.Set("tokenizer.ggml.merges", GgufValue.OfArray(["a x"])),
        ["a merge to an unknown token"] = m => m.Set("tokenizer.ggml.merges", GgufValue.OfArray(["b a"])),
        ["merges of numbers"] = m => m.Set("tokenizer.ggml.merges", GgufValue.OfArray([1, 2])),
        ["a token twice"] = m => m.Set("tokenizer.ggml.tokens", GgufValue.OfArray(["a", "a"])),
        ["no tokens"] = m => m.Set("tokenizer.ggml.tokens", GgufValue.OfArray(Array.Empty<string>())),
        ["tokens missing"] = m => m.Remove("tokenizer.ggml.tokens"),
        ["too few kinds"] = m => m.Set("tokenizer.ggml.token_type", GgufValue.OfArray([1])),
        ["a kind of 9"] = m => m.Set("tokenizer.ggml.token_type", GgufValue.OfArray([1, 1, 1, 1, 1, 1, 1, 1, 9, 4])),
        ["an id out of range"] = m => m.Set("tokenizer.ggml.eos_token_id", GgufValue.Of(10u)),
        ["a negative id"] = m => m.Set("tokenizer.ggml.bos_token_id", GgufValue.Of(-1)),
        ["an unknown pre-tokenizer"] = m => m.Set("tokenizer.ggml.pre", GgufValue.Of("nonsense")),
        ["an unknown model"] = m => m.Set("tokenizer.ggml.model", GgufValue.Of("nonsense")),
        ["no model"] = m => m.Remove("tokenizer.ggml.model"),
    };

    private static readonly Dictionary<string, Action<SmallModel>> HostileSentencePiece = new()
    {
        ["no scores"] = m => m.Remove("tokenizer.ggml.scores"),
        ["too few scores"] = m => m.Set("tokenizer.ggml.scores", GgufValue.OfArray([1f])),
        ["a score that is no number"] = m => m.Set("tokenizer.ggml.scores", GgufValue.OfArray([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, float.NaN])),
        ["a byte token of another form"] = m => m.Set("tokenizer.ggml.token_type", GgufValue.OfArray([2, 3, 3, 6, 6, 1, 1, 1, 1, 1, 4])),
    };

    public static TheoryData<string, string> Vectors() => new()
    {
        { "ggml-vocab-gpt-2.gguf", "ggml-vocab-gpt-2.gguf" },
        { "ggml-vocab-deepseek-llm.gguf", "ggml-vocab-deepseek-llm.gguf" },
        { "ggml-vocab-llama-spm.gguf", "ggml-vocab-llama-spm.gguf" },
        { "qwen2/vocab.gguf", "qwen2/vectors" },
    };

    public static TheoryData<bool, string> Hostile() =>
    [
        .. HostileBytePair.Keys.Select(what => (true, what)), .. HostileSentencePiece.Keys.Select(what => (false, what)),
    ];

    [Theory, MemberData(nameof(Vectors))]
    public void Encode_gives_the_ids_of_the_reference_and_decode_the_text(string vocabulary, string vectors)
    {
        Tokenizer tokenizer = Load(SharedData.PathOf("tokenizers", vocabulary));
        string input = File.ReadAllText(SharedData.PathOf("tokenizers", vectors + ".inp"));
        string[] texts = input.Split("\n__ggml_vocab_test__\n");
        string[] lines = File.ReadAllLines(SharedData.PathOf("tokenizers", vectors + ".out"));
        Assert.Equal(texts.Length - 1, lines.Length);
        for (int i = 0; i < lines.Length; i++)
        {
            int[] expected = [.. lines[i].Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(int.Parse)];
            int[] ids = tokenizer.Encode(texts[i], addSpecial: false);
            Assert.True(expected.SequenceEqual(ids), $"text {i} '{texts[i]}': [{string.Join(' ', ids)}] and not [{lines[i]}]");
            string decoded = tokenizer.Decode(ids);
            Assert.Equal(tokenizer.AddsSpacePrefix && texts[i].Length > 0 ? " " + texts[i] : texts[i], decoded);
            IncrementalDecoder incremental = new(tokenizer);
            Assert.Equal(decoded, string.Concat(ids.Select(incremental.Push)) + incremental.Flush());
        }
    }

    [Theory, MemberData(nameof(Hostile))]
    public void A_hostile_vocabulary_is_refused(bool bytePair, string what)
    {
        using TempFolder folder = new();
        SmallModel model = SmallModel.Llama(bytePair);
        (bytePair ? HostileBytePair : HostileSentencePiece)[what](model);
        model.Save(folder["m.gguf"]);
        Assert.ThrowsAny<SluiceModelException>(() => Load(folder["m.gguf"]));
    }

    [Fact]
    public void Special_tokens_are_parsed_only_when_asked()
    {
        Tokenizer qwen = Load(SharedData.PathOf("tokenizers", "qwen2", "vocab.gguf"));
        const string Text = "<|im_start|>user\nHi<|im_end|>";
        int start = qwen.Find("<|im_start|>")!.Value;
        int end = qwen.Find("<|im_end|>")!.Value;
        int[] parsed = qwen.Encode(Text, parseSpecial: true);
        Assert.Equal((start, end), (parsed[0], parsed[^1]));
        int[] plain = qwen.Encode(Text);
        Assert.DoesNotContain(start, plain);
        Assert.Equal(Text, qwen.Decode(plain));
        Assert.Equal("user\nHi", qwen.Decode(parsed));
        Assert.Equal(Text, qwen.Decode(parsed, skipSpecial: false));
        Assert.True(qwen.IsEndOfGeneration(end));
        Assert.True(qwen.IsSpecial(end));
        Assert.False(qwen.IsEndOfGeneration(plain[0]));
        Assert.Throws<ArgumentOutOfRangeException>(() => qwen.TokenBytes(qwen.VocabularySize));
        Assert.Throws<ArgumentOutOfRangeException>(() => qwen.TokenBytes(-1));
    }

    [Fact]
    public void Bos_and_the_space_in_front_come_as_the_file_says()
    {
        using TempFolder folder = new();
        SmallModel model = SmallModel.Llama();
        model.Save(folder["a.gguf"]);
        Tokenizer tokenizer = Load(folder["a.gguf"]);
        Assert.Equal([1, 9], tokenizer.Encode("ab"));
        Assert.Equal([9, 10, 9], tokenizer.Encode("ab<user>ab", addSpecial: false));
        Assert.Equal([9, 2, 7], tokenizer.Encode("ab</s>a", addSpecial: false, parseSpecial: true));
        Assert.Equal([3], tokenizer.Encode("A", addSpecial: false)[1..]);
        Assert.Equal([1], tokenizer.Encode(""));

        model.Set("tokenizer.ggml.add_space_prefix", GgufValue.Of(false));
        model.Set("tokenizer.ggml.add_bos_token", GgufValue.Of(false));
        model.Set("tokenizer.ggml.add_eos_token", GgufValue.Of(true));
        model.Save(folder["b.gguf"]);
        Assert.Equal([8, 9, 2], Load(folder["b.gguf"]).Encode("ab ab"));
    }

    [Fact]
    public void The_longest_special_token_wins()
    {
        using TempFolder folder = new();
        SmallModel model = SmallModel.Llama(bytePair: true);
        model.Set("tokenizer.ggml.tokens", GgufValue.OfArray(["a", "b", "c", "Ġ", "ab", "Ġa", "abc", "<u", "<u>", "<u>>>"]));
        model.Set("tokenizer.ggml.merges", GgufValue.OfArray(["a b"]));
        model.Set("tokenizer.ggml.token_type", GgufValue.OfArray([1, 1, 1, 1, 1, 1, 1, 4, 4, 4]));
        model.Save(folder["m.gguf"]);
        Tokenizer tokenizer = Load(folder["m.gguf"]);
        Assert.Equal([4, 9, 8, 0, 7, 2], tokenizer.Encode("ab<u>>><u>a<uc", addSpecial: false));
    }

    [Fact]
    public void A_character_is_never_given_in_halves()
    {
        Tokenizer gpt2 = Load(SharedData.PathOf("tokenizers", "ggml-vocab-gpt-2.gguf"));
        int[] ids = gpt2.Encode("🦙🚀 naïve 日本 ✅");
        IncrementalDecoder decoder = new(gpt2);
        StringBuilder text = new();
        int silent = 0;
        foreach (int id in ids)
        {
            string piece = decoder.Push(id);
            silent += piece.Length == 0 ? 1 : 0;
            Assert.DoesNotContain('\uFFFD', piece);
            Assert.True(piece.Length == 0 || !char.IsHighSurrogate(piece[^1]));
            text.Append(piece);
        }

        Assert.True(silent > 0);
        Assert.Equal("🦙🚀 naïve 日本 ✅", text.ToString());
        Assert.Equal("", decoder.Flush());
        Assert.Equal("", decoder.Push(ids[0]));
        Assert.Equal("\uFFFD", decoder.Flush());
    }

    [Fact]
    public void Any_text_comes_back_from_every_byte_level_vocabulary()
    {
        Random random = new(11);
        foreach (string name in new[] { "ggml-vocab-gpt-2.gguf", "ggml-vocab-deepseek-llm.gguf", "qwen2/vocab.gguf" })
        {
            Tokenizer tokenizer = Load(SharedData.PathOf("tokenizers", name));
            for (int round = 0; round < 10_000; round++)
            {
                StringBuilder text = new();
                for (int length = random.Next(1, 30); length > 0; length--)
                {
                    int codePoint = random.Next(4) switch { 0 => random.Next(0x80), 1 => random.Next(0x800), 2 => random.Next(0xD800), _ => random.Next(0x10000, 0x110000) };
                    text.Append(char.ConvertFromUtf32(codePoint));
                }

                Assert.Equal(text.ToString(), tokenizer.Decode(tokenizer.Encode(text.ToString(), addSpecial: false)));
            }
        }
    }

    [Theory, InlineData("ggml-vocab-gpt-2.gguf"), InlineData("ggml-vocab-deepseek-llm.gguf"), InlineData("ggml-vocab-llama-spm.gguf"), InlineData("qwen2/vocab.gguf")]
    public void A_long_text_without_a_break_takes_no_more_than_its_share(string name)
    {
        Tokenizer tokenizer = Load(SharedData.PathOf("tokenizers", name));
        foreach (string unit in new[] { "a", " ", "\n", "'", "7", "日", " \t", "ab", "<|" })
        {
            string text = string.Concat(Enumerable.Repeat(unit, 100_000 / unit.Length));
            Stopwatch time = Stopwatch.StartNew();
            int[] ids = tokenizer.Encode(text, addSpecial: false);
            Assert.True(time.Elapsed < TimeSpan.FromSeconds(30), $"'{unit}' took {time.Elapsed}");
            Assert.Equal((tokenizer.AddsSpacePrefix ? " " : "") + text, tokenizer.Decode(ids));
        }
    }

    [Fact]
    public void Millions_of_words_fit_and_leave_nothing_behind()
    {
        Tokenizer tokenizer = Load(SharedData.PathOf("tokenizers", "ggml-vocab-gpt-2.gguf"));
        string text = string.Concat(Enumerable.Repeat(" a", 1_200_000));
        Assert.Equal(1_200_000, tokenizer.Encode(text).Length);
        Assert.Equal(2, tokenizer.Encode(" a a").Length);
    }

    [Fact]
    public void A_piece_over_the_end_of_a_word_is_found()
    {
        using TempFolder folder = new();
        SmallModel model = SmallModel.Llama();
        model.Set("tokenizer.ggml.tokens", GgufValue.OfArray(["<unk>", "<s>", "</s>", "<0x41>", "▁", "a", "b", "▁a", "b▁", "b▁a", "<user>"]));
        model.Set("tokenizer.ggml.scores", GgufValue.OfArray([0f, 0, 0, 0, -5, -6, -7, -9, -3, -1, 0]));
        model.Save(folder["m.gguf"]);
        Assert.Equal([7, 9, 6], Load(folder["m.gguf"]).Encode("ab ab", addSpecial: false));
    }

    [Fact]
    public void Encode_gives_the_ids_of_the_cases_with_a_small_vocabulary()
    {
        Tokenizer tokenizer = Load(SharedData.PathOf("models", "stories260K", "stories260K-f32.gguf"));
        using JsonDocument cases = JsonDocument.Parse(File.ReadAllBytes(SharedData.PathOf("hf", "tiny-llama-hf", "tokenizer.cases.json")));
        int count = 0;
        foreach (JsonElement item in cases.RootElement.EnumerateArray())
        {
            string text = item.GetProperty("text").GetString()!;
            int[] expected = [.. item.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32())];
            int[] ids = tokenizer.Encode(text);
            Assert.True(expected.SequenceEqual(ids), $"'{text}': [{string.Join(' ', ids)}] and not [{string.Join(' ', expected)}]");
            count++;
        }

        Assert.Equal(56, count);
    }

    [Fact]
    public void Prompts_and_texts_of_the_goldens_agree()
    {
        string folder = SharedData.PathOf("goldens");
        foreach (string path in Directory.GetFiles(folder, "*.json"))
        {
            string name = Path.GetFileNameWithoutExtension(path).Replace("-longprompt", "");
            Tokenizer tokenizer = Load(SharedData.PathOf("models", name.StartsWith("tiny", StringComparison.Ordinal) ? "tiny" : "stories260K", name + ".gguf"));
            using JsonDocument golden = JsonDocument.Parse(File.ReadAllBytes(path));
            JsonElement root = golden.RootElement;
            Assert.Equal(root.GetProperty("prompt_ids").EnumerateArray().Select(id => id.GetInt32()), tokenizer.Encode(root.GetProperty("prompt").GetString()!));
            if (root.TryGetProperty("text_utf8_hex", out JsonElement hex))
            {
                IEnumerable<int> ids = root.GetProperty("ids").EnumerateArray().Select(id => id.GetInt32()).Where(id => !tokenizer.IsSpecial(id));
                byte[] bytes = [.. ids.SelectMany(id => tokenizer.TokenBytes(id).ToArray())];
                Assert.Equal(hex.GetString(), Convert.ToHexStringLower(bytes));
            }
        }
    }

    [Fact]
    public void Threads_share_a_tokenizer()
    {
        Tokenizer tokenizer = Load(SharedData.PathOf("tokenizers", "ggml-vocab-gpt-2.gguf"));
        string[] texts = File.ReadAllText(SharedData.PathOf("tokenizers", "ggml-vocab-gpt-2.gguf.inp")).Split("\n__ggml_vocab_test__\n");
        int[][] expected = [.. texts.Select(text => tokenizer.Encode(text))];
        Parallel.For(0, 400, i => Assert.Equal(expected[i % texts.Length], tokenizer.Encode(texts[i % texts.Length])));
    }

    private static Tokenizer Load(string path)
    {
        using GgufFile file = GgufFile.Open(path);
        return Tokenizer.FromGguf(file);
    }
}
