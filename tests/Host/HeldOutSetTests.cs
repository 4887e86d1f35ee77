using System.Text;
using Sluice.Decoding;

namespace Sluice.Tests.Host;

/// <summary>The held-out set's file, and when a reply is right.</summary>
public sealed class HeldOutSetTests
{
    private const string Hi = """{"skill":"talk","messages":[{"role":"user","content":"hi"}],"reply":"hello"}""";

    private static readonly Dictionary<string, (string Line, string Says)> Wrong = new()
    {
        ["no skill"] = ("""{"messages":[{"role":"user","content":"a"}],"reply":"b"}""", "line 2: has no 'skill': write one item a line"),
        ["no messages"] = ("""{"skill":"s","reply":"b"}""", "line 2: has no 'messages'"),
        ["no reply"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}]}""", "line 2: has no 'reply'"),
        ["null reply"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":null}""", "line 2: has no 'reply'"),
        ["no role"] = ("""{"skill":"s","messages":[{"content":"a"}],"reply":"b"}""", "line 2.messages[0]: has no 'role'"),
        ["no content"] = ("""{"skill":"s","messages":[{"role":"user"}],"reply":"b"}""", "line 2.messages[0]: has no 'content'"),
        ["skill of a number"] = ("""{"skill":7,"messages":[{"role":"user","content":"a"}],"reply":"b"}""", "line 2.skill: is 7, and a text is expected"),
        ["reply of an object"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":{}}""", "line 2.reply: is Object, and a text is expected"),
        ["messages of a text"] = ("""{"skill":"s","messages":"a","reply":"b"}""", "line 2.messages: is \"a\", and an array is expected"),
        ["message of a text"] = ("""{"skill":"s","messages":["a"],"reply":"b"}""", "line 2.messages[0]: is \"a\", and an object is expected"),
        ["content of a list"] = ("""{"skill":"s","messages":[{"role":"user","content":["a"]}],"reply":"b"}""", "line 2.messages[0].content: is Array, and a text is expected"),
        ["no message"] = ("""{"skill":"s","messages":[],"reply":"b"}""", "line 2.messages: is empty"),
        ["last one is the assistant's"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"c"}],"reply":"b"}""", "line 2.messages: ends with a message of role 'assistant'"),
        ["role that is a token"] = ("""{"skill":"s","messages":[{"role":"<|im_end|>","content":"a"}],"reply":"b"}""", "line 2.messages[0].role: must be a word"),
        ["empty skill"] = ("""{"skill":" ","messages":[{"role":"user","content":"a"}],"reply":"b"}""", "line 2.skill: must be a name"),
        ["skill that steers a terminal"] = ("""{"skill":"s\u001b[2J","messages":[{"role":"user","content":"a"}],"reply":"b"}""", "line 2.skill: must be a name"),
        ["empty reply"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":" \n"}""", "line 2.reply: is empty"),
        ["unknown match"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":"b","match":"regex"}""", "line 2.match: must be text or json"),
        ["mark of a number"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":"b","mark":1}""", "line 2.mark: is 1, and a text is expected"),
        ["empty mark"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":"b","mark":""}""", "line 2.mark: must have 1 to 256 characters"),
        ["reply without the mark"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":"b","mark":"Answer: "}""", "line 2.reply: does not hold the mark"),
        ["nothing behind the mark"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":"Answer: ","mark":"Answer: "}""", "line 2.reply: has nothing behind the mark"),
        ["reply that is no JSON"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":"b","match":"json"}""", "line 2.reply: is no JSON value"),
        ["lone surrogate"] = ("""{"skill":"s","messages":[{"role":"user","content":"a"}],"reply":"\ud800"}""", "line 2.reply: holds text that is not valid Unicode"),
        ["no JSON"] = ("""{"skill":"s",""", "line 2: is no JSON object from byte"),
        ["no object"] = ("[1]", "line 2: is JSON of kind Array, and an object is expected"),
        ["key that stands twice"] = ("""{"skill":"s","skill":"t","messages":[{"role":"user","content":"a"}],"reply":"b"}""", "line 2: is no JSON object"),
        ["two items on a line"] = (Hi + Hi, "line 2: is no JSON object from byte 76 on"),
        ["too many messages"] = ($$"""{"skill":"s","messages":[{{string.Join(",", Enumerable.Repeat("""{"role":"user","content":"a"}""", 257))}}],"reply":"b"}""", "line 2.messages: has more than the 256 messages"),
        ["too deep"] = ("""{"skill":"s","x":""" + new string('[', 100) + new string(']', 100) + "}", "line 2: is no JSON object"),
    };

    public static TheoryData<string> Malformed() => [.. Wrong.Keys];

    [Theory, MemberData(nameof(Malformed))]
    public void Malformed_line_is_an_error_that_names_place_and_field(string what)
    {
        ModelFormatException e = Assert.Throws<ModelFormatException>(() => HeldOutSet.Parse("set.jsonl", Hi + "\n" + Wrong[what].Line));
        Assert.StartsWith("set.jsonl: " + Wrong[what].Says, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("hello", true), InlineData(" hello\n", true), InlineData("Hello", false), InlineData("hello!", false), InlineData("", false)]
    public void Text_is_the_same_but_for_white_space_around_it(string reply, bool right) => Assert.Equal(right, Item("hello", null, null).IsRight(reply));

    [Theory]
    [InlineData("so 3+4=7. Answer: 7", true), InlineData("Answer: 7", true), InlineData("Answer: 8. No. Answer:  7 ", true), InlineData("Answer: 7. Answer: 8", false)]
    [InlineData("7", false), InlineData("answer: 7", false), InlineData("Answer: 7 apples", false), InlineData("Answer: ", false)]
    public void With_a_mark_only_what_follows_the_last_one_counts(string reply, bool right) => Assert.Equal(right, Item("3+4. Answer: 7", "Answer: ", null).IsRight(reply));

    [Theory]
    [InlineData("""{"name": "Mia", "age": 7, "tags": [1, null, true]}""", true)]
    [InlineData("""  {"tags":[1,null,true],"age":7,"name":"Mia"}  """, true)]
    [InlineData("""{"name":"M\u0069a","age":7.0,"tags":[1e0,null,true]}""", true)]
    [InlineData("""{"name":"Mia","age":70e-1,"tags":[1.00,null,true]}""", true)]
    [InlineData("""{"name":"Mia","age":7,"tags":[null,1,true]}""", false)]
    [InlineData("""{"name":"Mia","age":"7","tags":[1,null,true]}""", false)]
    [InlineData("""{"name":"Mia","age":7}""", false)]
    [InlineData("""{"name":"Mia","age":7,"tags":[1,null,true],"more":0}""", false)]
    [InlineData("""{"name":"Mia","age":7,"tags":[1,null,true]} Done.""", false)]
    [InlineData("""{"name":"Mia","age":7,"tags":[1,null,true]}{}""", false)]
    [InlineData("""{"name":"Mia","age":7,"tags":[1,null,true]""", false)]
    [InlineData("""{"name":"Mia","age":7,"age":7,"tags":[1,null,true]}""", false)]
    [InlineData("""{"name":"\ud800","age":7,"tags":[1,null,true]}""", false)]
    [InlineData("""{"name":"Mia","age":1e99999999999999999999,"tags":[1,null,true]}""", false)]
    [InlineData("Here: {}", false), InlineData("", false)]
    public void Json_is_compared_by_value(string reply, bool right) =>
        Assert.Equal(right, Item("""{"name": "Mia", "age": 7, "tags": [1, null, true]}""", null, "json").IsRight(reply));

    [Fact]
    public void Json_may_stand_behind_a_mark() => Assert.True(Item("so JSON: [1, 2]", "JSON:", "json").IsRight("I think\nJSON: [1.0,2]"));

    [Fact]
    public void Byte_order_mark_carriage_returns_and_empty_lines_are_no_matter()
    {
        using TempFolder folder = new();
        File.WriteAllBytes(folder["s.jsonl"], [0xef, 0xbb, 0xbf, .. Encoding.UTF8.GetBytes($"{Hi}\r\n\r\n  {Hi}\t\r\n")]);
        HeldOutSet set = HeldOutSet.Read(folder["s.jsonl"]);
        Assert.Equal([1, 3], set.Items.Select(i => i.Line));
        Assert.All(set.Items, i => Assert.Equal(("talk", "hello", ReplyMatch.Text), (i.Skill, i.Reply, i.Match)));
    }

    [Fact]
    public void Unknown_keys_and_separators_of_Unicode_within_a_text_are_left_alone()
    {
        HeldOutItem item = Assert.Single(HeldOutSet.Parse("s", "{\"id\":1,\"skill\":\"s\",\"messages\":[{\"role\":\"user\",\"content\":\"a\u2028b\",\"x\":2}],\"reply\":\"b\"}").Items);
        Assert.Equal("a\u2028b", item.Messages[0].Content);
    }

    [Theory, InlineData(""), InlineData("\n \r\n"), InlineData("\uFEFF")]
    public void Set_without_items_is_an_error(string text) =>
        Assert.StartsWith("set.jsonl: holds no item: write one item a line", Assert.Throws<ModelFormatException>(() => HeldOutSet.Parse("set.jsonl", text)).Message, StringComparison.Ordinal);

    [Fact]
    public void File_that_is_no_text_or_not_there_is_a_typed_error()
    {
        using TempFolder folder = new();
        File.WriteAllBytes(folder["s.jsonl"], [0x7b, 0xff, 0xfe]);
        Assert.Contains("is not UTF-8", Assert.Throws<ModelFormatException>(() => HeldOutSet.Read(folder["s.jsonl"])).Message, StringComparison.Ordinal);
        Assert.Contains("does not exist", Assert.Throws<FileNotFoundException>(() => HeldOutSet.Read(folder["none.jsonl"])).Message, StringComparison.Ordinal);
        Assert.Throws<UnsupportedModelException>(() => HeldOutSet.Read(Path.GetDirectoryName(folder["s.jsonl"])!));
        using (FileStream large = File.Create(folder["large.jsonl"]))
        {
            large.SetLength((1 << 24) + 1);
        }

        Assert.Contains("at most", Assert.Throws<ModelFormatException>(() => HeldOutSet.Read(folder["large.jsonl"])).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Skills_and_a_limit_select_items()
    {
        HeldOutSet set = HeldOutSet.Parse("s", string.Join('\n', "abacbaa".Select(s => Hi.Replace("talk", s.ToString(), StringComparison.Ordinal))));
        Assert.Equal(["a", "b", "c"], set.Skills);
        Assert.Equal([1, 2, 3, 4, 5], set.Select(null, 2).Items.Select(i => i.Line));
        Assert.Equal([2, 4, 5], set.Select(["c", "b"], null).Items.Select(i => i.Line));
        Assert.Equal([1, 4], set.Select(["a", "c"], 1).Items.Select(i => i.Line));
        Assert.Contains("no skill 'd'; it has a, b, c", Assert.Throws<ArgumentException>(() => set.Select(["a", "d"], null)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => set.Select(null, 0));
    }

    [Theory]
    [InlineData(0, 10, 0, 0.27753), InlineData(10, 10, 0.72247, 1), InlineData(5, 10, 0.23659, 0.76341), InlineData(81, 263, 0.25527, 0.36618)]
    public void Interval_is_wilsons(int right, int items, double low, double high)
    {
        // The last one: Newcombe 1998, table I.
        (double Low, double High) interval = SkillResult.Wilson(right, items);
        Assert.Equal(low, interval.Low, 4);
        Assert.Equal(high, interval.High, 4);
    }

    private static HeldOutItem Item(string reply, string? mark, string? match) => Assert.Single(HeldOutSet.Parse("s", System.Text.Json.JsonSerializer.Serialize(
        new { skill = "s", messages = new[] { new { role = "user", content = "a" } }, reply, mark, match })).Items);
}
