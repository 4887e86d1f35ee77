using System.Text.Json;
using Sluice.Templates;

namespace Sluice.Tests.Host;

/// <summary>The template language: against tables made with Jinja2 3.1.2, and against what must never happen.</summary>
public sealed class JinjaTests
{
    private static readonly DateTimeOffset Now = new(2026, 3, 7, 9, 5, 4, TimeSpan.Zero);

    public static TheoryData<string> SharedTemplates => new("Qwen-Qwen2.5-7B-Instruct", "deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "google-gemma-2-2b-it", "meta-llama-Llama-3.1-8B-Instruct", "mistralai-Mistral-Nemo-Instruct-2407", "openai-gpt-oss-120b");

    [Theory]
    [MemberData(nameof(SharedTemplates))]
    public void Real_template_renders_to_the_letter(string name)
    {
        using JsonDocument document = JsonDocument.Parse(File.ReadAllBytes(SharedData.PathOf("templates", name + ".cases.json")));
        JsonElement top = document.RootElement;
        ChatTemplate template = ChatTemplate.Parse(File.ReadAllText(SharedData.PathOf("templates", top.GetProperty("template").GetString()!)), name);
        int cases = 0;
        foreach (JsonElement c in top.GetProperty("cases").EnumerateArray())
        {
            cases++;
            ChatTemplateInput input = new()
            {
                MessagesJson = c.GetProperty("messages"),
                Tools = Given(c, "tools"),
                AddGenerationPrompt = c.GetProperty("add_generation_prompt").GetBoolean(),
                BosToken = Given(top, "bos_token")?.GetString(),
                EosToken = Given(top, "eos_token")?.GetString(),
                Now = DateTimeOffset.Parse(top.GetProperty("now").GetString() + "Z", System.Globalization.CultureInfo.InvariantCulture),
                Variables = Given(c, "extra")?.EnumerateObject().ToDictionary(p => p.Name, p => p.Value),
            };
            string label = $"{name}: {c.GetProperty("name").GetString()}";
            if (c.TryGetProperty("expected", out JsonElement expected))
            {
                RenderedChat chat = template.Render(input);
                Assert.True(expected.GetString() == chat.Text, $"{label}: {chat.Text}");
                AssertSound(chat);
                continue;
            }

            ChatTemplateException e = Assert.Throws<ChatTemplateException>(() => template.Render(input));
            if (c.GetProperty("error_kind").GetString() == "raise_exception")
            {
                Assert.Equal((label, ChatTemplateError.Raised, c.GetProperty("error").GetString()), (label, e.Kind, e.Detail));
            }
        }

        Assert.True(cases >= 34);
    }

    [Fact]
    public void Expressions_mean_what_they_mean_in_Jinja() => AssertTable(JinjaExpressionTable.All);

    [Fact]
    public void Statements_and_white_space_mean_what_they_mean_in_Jinja() => AssertTable(JinjaStatementTable.All);

    [Fact]
    public void What_Jinja_refuses_is_a_typed_error()
    {
        foreach ((string template, string kind) in JinjaErrorTable.All)
        {
            ChatTemplateException e = Assert.Throws<ChatTemplateException>(() => Render(template));
            Assert.True(kind == e.Kind.ToString(), $"{template}: {e.Kind}, {e.Message}");
            Assert.True(e.Line > 0, template);
        }
    }

    [Theory]
    [InlineData("a\n{% if x %}\n{{ 1 + }}\n{% endif %}", 3, 8)]
    [InlineData("{% for x in y %}\n", 1, 17)]
    [InlineData("\r\n\r\n{{ 'abc }}", 3, 4)]
    [InlineData("ab{# c", 1, 3)]
    public void Syntax_error_names_file_line_and_column(string template, int line, int column)
    {
        ChatTemplateException e = Assert.Throws<ChatTemplateException>(() => ChatTemplate.Parse(template, "model.gguf"));
        Assert.Equal((ChatTemplateError.Syntax, "model.gguf", line, column), (e.Kind, e.File, e.Line, e.Column));
        Assert.StartsWith($"model.gguf: line {line}, column {column}: ", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Runtime_error_names_the_line_and_the_name()
    {
        ChatTemplateException e = Assert.Throws<ChatTemplateException>(() => Render("a\nb\n{{ nowhere.x }}"));
        Assert.Equal((ChatTemplateError.Runtime, 3), (e.Kind, e.Line));
        Assert.Contains("'nowhere' is undefined", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Time_is_told_without_a_culture()
    {
        Assert.Equal("Sat 07 Mar 2026, 7 March, 09:05:04 AM 066", Render("{{ strftime_now('%a %d %b %Y, %-d %B, %I:%M:%S %p %j') }}").Text);
    }

    [Fact]
    public void Template_cannot_change_its_input_or_reach_the_host()
    {
        foreach (string template in new[]
        {
            "{{ messages.append(1) }}", "{{ messages[0].update({'role': 'system'}) }}", "{{ messages[0].clear() }}", "{{ messages.sort() }}",
            "{{ ''.__class__.__mro__ }}", "{{ messages.__class__.x }}", "{{ namespace.__init__.__globals__ }}", "{{ '{0.__class__.x}'.format(1) }}",
            "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{{ open('/etc/passwd') }}", "{{ self._TemplateReference__context.x }}",
        })
        {
            Assert.Throws<ChatTemplateException>(() => Render(template));
        }
    }

    internal static RenderedChat Render(string template, ChatTemplateInput? input = null) =>
        ChatTemplate.Parse(template, "test").Render(input ?? ChatTemplateInput.FromJson("""[{"role":"user","content":"x"}]""") with { BosToken = "B", Now = Now });

    // Ranges are ascending, apart, not empty, and within the text.
    internal static void AssertSound(RenderedChat chat)
    {
        int end = -1;
        foreach (TextRange range in chat.Data)
        {
            Assert.True(range.Start > end && range.End > range.Start && range.End <= chat.Text.Length);
            end = range.End;
        }
    }

    private static void AssertTable((string Template, string Expected)[] rows)
    {
        Assert.True(rows.Length > 100);
        foreach ((string template, string expected) in rows)
        {
            RenderedChat chat = Render(template);
            Assert.True(expected == chat.Text, $"{template}\nexpected {expected}\nbut was  {chat.Text}");
            AssertSound(chat);
        }
    }

    private static JsonElement? Given(JsonElement element, string name) =>
        element.TryGetProperty(name, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? value : null;
}
