using System.Text;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

public class PreTokenizerTests
{
    [Theory]
    [InlineData("llama-bpe", "Hello world", "Hello| world")]
    [InlineData("llama-bpe", "I'm we'LL 'Tis it's", "I|'m| we|'LL| '|Tis| it|'s")]
    [InlineData("llama-bpe", "1234567 12", "123|456|7| |12")]
    [InlineData("llama-bpe", "a  b   c", "a| | b|  | c")]
    [InlineData("llama-bpe", "a \n\n b", "a| \n\n| b")]
    [InlineData("llama-bpe", "a \n  \n   b", "a| \n  \n|  | b")]
    [InlineData("llama-bpe", "end.\n\nNext", "end|.\n\n|Next")]
    [InlineData("llama-bpe", "x !!\r\n\r\ny", "x| !!\r\n\r\n|y")]
    [InlineData("llama-bpe", "(hello)\tworld", "(hello|)|\tworld")]
    [InlineData("llama-bpe", "\nab", "\n|ab")]
    [InlineData("llama-bpe", "tail   ", "tail|   ")]
    [InlineData("llama-bpe", "tail \n ", "tail| \n| ")]
    [InlineData("llama-bpe", " 3 $5", " |3| $|5")]
    [InlineData("llama-bpe", "日本語 テスト", "日本語| テスト")]
    [InlineData("llama-bpe", "e\u0301a \u00A0b", "e|\u0301a| |\u00A0b")]
    [InlineData("llama-bpe", "½²Ⅷ٣", "½²Ⅷ|٣")]
    [InlineData("llama-bpe", "👍🏽x", "👍🏽|x")]
    [InlineData("qwen2", "1234 a", "1|2|3|4| a")]
    [InlineData("qwen2", "it'd've", "it|'d|'ve")]
    [InlineData("gpt-2", "Hello  world's 123!! \n x", "Hello| | world|'s| 123|!!| \n| x")]
    [InlineData("gpt-2", "I'M 's", "I|'|M| '|s")]
    [InlineData("gpt-2", "a\nb\n\nc\t", "a|\n|b|\n|\n|c|\t")]
    [InlineData("gpt-2", "  ", "  ")]
    [InlineData("starcoder", "ab123 4", "ab|1|2|3| |4")]
    [InlineData("default", "a,b: 12345", "a|,|b|:| |123|45")]
    [InlineData("deepseek-llm", "Hi you\nab  ", "Hi| you|\n|ab|  ")]
    [InlineData("deepseek-llm", "价格 $5, é", "价格| $|5|,| é")]
    public void Split_cuts_as_the_expression_does(string name, string text, string expected)
    {
        Assert.Equal(expected.Split('|'), Split(name, text));
    }

    [Theory, InlineData("gpt-2"), InlineData("llama-bpe"), InlineData("qwen2"), InlineData("deepseek-llm"), InlineData("starcoder"), InlineData("default")]
    public void Words_cover_any_text(string name)
    {
        Random random = new(5);
        string[] parts = ["a", "Z", " ", "\n", "\r", "\t", "7", "é", "'", "s", "!", "\u3000", "日", "👍", "\u0301", "٣", "$", "\u2028", "\u0000"];
        for (int round = 0; round < 2_000; round++)
        {
            StringBuilder text = new();
            for (int length = random.Next(20); length > 0; length--)
            {
                text.Append(parts[random.Next(parts.Length)]);
            }

            string[] words = Split(name, text.ToString());
            Assert.Equal(text.ToString(), string.Concat(words));
            Assert.DoesNotContain("", words);
        }
    }

    [Theory, InlineData("gpt-2"), InlineData("llama-bpe"), InlineData("qwen2"), InlineData("deepseek-llm"), InlineData("default")]
    public void Split_of_broken_utf8_ends(string name)
    {
        byte[] bytes = new byte[4_096];
        new Random(3).NextBytes(bytes);
        List<int> ends = [];
        PreTokenizer.Find(name)!.Split(bytes, ends, []);
        Assert.Equal(bytes.Length, ends[^1]);
        Assert.True(ends.Zip(ends.Skip(1)).All(pair => pair.First < pair.Second));
    }

    private static string[] Split(string name, string text)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(text);
        List<int> ends = [];
        PreTokenizer.Find(name)!.Split(bytes, ends, []);
        return [.. ends.Select((end, i) => Encoding.UTF8.GetString(bytes, i == 0 ? 0 : ends[i - 1], end - (i == 0 ? 0 : ends[i - 1])))];
    }
}
