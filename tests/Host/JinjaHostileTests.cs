using System.Text;
using Sluice.Templates;

namespace Sluice.Tests.Host;

/// <summary>Whatever a template holds, it renders or fails with a typed error: soon, small, and without an overflow of the stack.</summary>
public sealed class JinjaHostileTests
{
    private const string Small =
        "{%- macro m(a, b=2) -%}{{ a }}{{ b }}{%- endmacro -%}{% set ns = namespace(x=0) %}{% for i in messages if i.role != 'z' %}"
        + "{% if loop.first and not i.content is none %}{{ m(i['content'][0:2], loop.index) }}{% elif i is mapping %}{{ i|tojson }}{% else %}{% break %}{% endif %}"
        + "{% set ns.x = ns.x + 1 %}{% endfor %}{# c #}{% raw %}{{ }}{% endraw %}{{ 'a' ~ ns.x ~ \"\\n\" if ns.x > 0 else [1, (2, 3), {'k': -1.5e3}] }}";

    public static TheoryData<string> Hostile => new(
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% for a in range(100000) %}{% for b in range(100000) %}" + new string('x', 200) + "{% endfor %}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ range(10**12) }}",
        "{{ 10**10**10 }}",
        "{% set ns = namespace(x='a') %}{% for i in range(100) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(100) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson }}",
        "{% set ns = namespace(x=[], y=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% set ns.y = [ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(x=(1,)) %}{% for i in range(100000) %}{% set ns.x = (ns.x,) %}{% endfor %}{{ {ns.x: 1} }}",
        "{% set ns = namespace(x=[], y=[]) %}{% for i in range(100) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
        "{% set ns = namespace(g=[1]) %}{% for i in range(50000) %}{% set ns.g = ns.g|map('string') %}{% endfor %}{{ ns.g|list }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ " + new string('(', 100_000) + "1" + new string(')', 100_000) + " }}",
        "{{ " + new string('[', 100_000) + new string(']', 100_000) + " }}",
        "{{ " + Times("{1:", 100_000) + "1" + new string('}', 100_000) + " }}",
        "{{ " + new string('-', 100_000) + "1 }}",
        "{{ " + Times("not ", 100_000) + "1 }}",
        "{{ " + Times("1 if 0 else ", 100_000) + "1 }}",
        "{{ 1" + Times("+1", 100_000) + " }}",
        "{{ 1" + Times("|string", 100_000) + " }}",
        "{{ x" + Times(".a", 100_000) + " }}",
        Times("{% if 1 %}", 100_000) + Times("{% endif %}", 100_000),
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a'.center(10**9) }}",
        "{{ [1]|batch(10**12, 0)|list }}",
        "{{ [1]|tojson(indent=10**9) }}",
        "{% set a = 'a' * 10**6 %}{{ a.replace('a', a) }}",
        "{% set a = 'a' * 10**7 %}{% set b = 'a' * 5000000 ~ 'b' %}{% for i in range(1000) %}{{ a.find(b) }}{% endfor %}",
        "{% set a = '\U0001F600' * 10**6 %}{% for i in range(100000) %}{% set x = a[i] %}{% endfor %}",
        "{{ 'a' * 1000000 | wordwrap(1) }}" + "{% set a = 'a' * 10**6 %}{{ a|wordwrap(1) }}",
        Times("{#", 100_000),
        Times("{%", 100_000),
        Times("{% raw %}", 100_000),
        "{{ [[1]*1000000]*1000 == [[1]*1000000]*1000 }}",
        "{{ 99999999999999999999 + 1 }}",
        "{{ 9223372036854775807 + 1 }}");

    [Theory]
    [MemberData(nameof(Hostile))]
    public void Hostile_template_is_a_typed_error(string template)
    {
        // How deep values may nest is what the stack holds; on a large one a deep comparison may well end.
        ChatTemplateException e = Assert.IsType<ChatTemplateException>(OnStackOf(1 << 20, () => JinjaTests.Render(template)));
        Assert.True(e.Kind is ChatTemplateError.Limit or ChatTemplateError.Syntax or ChatTemplateError.Runtime, e.Message);
    }

    [Fact]
    public void Hostile_template_ends_on_a_small_stack()
    {
        Exception? thrown = OnStackOf(256 << 10, () =>
        {
            foreach (string template in Hostile.Select(row => row.Data).Where(t => t.Contains("ns.x", StringComparison.Ordinal) || t.Contains("f()", StringComparison.Ordinal) || t.Length > 10_000))
            {
                Try(template);
            }
        });
        Assert.Null(thrown);
    }

    private static Exception? OnStackOf(int bytes, Action act)
    {
        Exception? thrown = null;
        Thread thread = new(() => thrown = Record.Exception(act), bytes);
        thread.Start();
        thread.Join();
        return thrown;
    }

    [Fact]
    public void Limits_are_those_that_are_given()
    {
        ChatTemplate template = ChatTemplate.Parse("{% for i in range(100) %}ab{% endfor %}", "test");
        Assert.Equal(200, template.Render(new ChatTemplateInput()).Text.Length);
        Assert.Equal(ChatTemplateError.Limit, Assert.Throws<ChatTemplateException>(() => template.Render(new ChatTemplateInput { Limits = new(Steps: 50) })).Kind);
        Assert.Equal(ChatTemplateError.Limit, Assert.Throws<ChatTemplateException>(() => template.Render(new ChatTemplateInput { Limits = new(OutputChars: 49) })).Kind);
    }

    [Fact]
    public void Input_that_is_no_value_is_a_typed_error()
    {
        Assert.Equal(ChatTemplateError.Input, Assert.Throws<ChatTemplateException>(() => ChatTemplateInput.FromJson("{}")).Kind);
        Assert.Equal(ChatTemplateError.Input, Assert.Throws<ChatTemplateException>(() => ChatTemplateInput.FromJson("[")).Kind);
        Assert.Equal(ChatTemplateError.Input, Assert.Throws<ChatTemplateException>(() => JinjaTests.Render("x", ChatTemplateInput.FromJson("""[{"role":"\ud800"}]"""))).Kind);
    }

    [Fact]
    public void Truncation_anywhere_is_a_typed_error_or_a_render()
    {
        int rendered = 0;
        for (int length = 0; length <= Small.Length; length++)
        {
            rendered += Try(Small[..length]) ? 1 : 0;
        }

        Assert.InRange(rendered, 2, Small.Length - 50);
    }

    [Fact]
    public void Any_byte_flipped_is_a_typed_error_or_a_render()
    {
        int rounds = Fuzz.Rounds;
        byte[] bytes = Encoding.UTF8.GetBytes(Small);
        Random random = new(20260307);
        int rendered = 0;
        for (int round = 0; round < rounds; round++)
        {
            byte[] changed = [.. bytes];
            for (int flips = random.Next(1, 4); flips > 0; flips--)
            {
                changed[random.Next(changed.Length)] ^= (byte)(1 << random.Next(8));
            }

            rendered += Try(Encoding.UTF8.GetString(changed)) ? 1 : 0;
        }

        Assert.InRange(rendered, rounds / 50, rounds);
    }

    // Whether it renders; anything but a typed error goes through.
    private static bool Try(string template)
    {
        try
        {
            JinjaTests.AssertSound(ChatTemplate.Parse(template, "fuzz").Render(new ChatTemplateInput { Messages = [new("user", "hello"), new("assistant", null)], Limits = new(Steps: 1_000_000, OutputChars: 1 << 20) }));
            return true;
        }
        catch (ChatTemplateException)
        {
            return false;
        }
    }

    private static string Times(string s, int count) => new StringBuilder(s.Length * count).Insert(0, s, count).ToString();
}
