using System.Text.Json;
using System.Xml.Linq;
using Sluice.Tests.Host;

namespace Sluice.Tests.Golden;

/// <summary>bench throughput, latency and serve as a person runs them: what they print fits together. Times are held against each other, and against nothing else.</summary>
public sealed class ConsoleServingTests
{
    private static readonly string Tales = Path.Combine(AppContext.BaseDirectory, "models", "tales");
    private static readonly string[] Few = ["--requests", "5", "--warmup", "1", "--prompt-tokens", "10-30", "--gen-tokens", "4", "--device", "cpu", "--threads", "2"];

    public static TheoryData<string, string> Verbs() => new() { { "throughput", "" }, { "latency", "" }, { "serve", "200" } };

    [Theory]
    [MemberData(nameof(Verbs))]
    public void Each_verb_prints_numbers_that_fit_together(string verb, string rate)
    {
        using TempFolder folder = new();
        string[] bounds = rate.Length == 0 ? [] : ["--rate", rate, "--ttft-bound", "1e9", "--tpot-bound", "1e9"];
        (int code, string output, string error) = ConsoleProgram.Run([], "", ["bench", verb, Tales, .. Few, .. bounds, "--seed", "3", "--shared-prefix", "32", "--json", "--plot", folder["all.svg"]]);
        Assert.True(code == 0, error);
        using JsonDocument document = JsonDocument.Parse(output);
        JsonElement json = document.RootElement;
        Assert.Equal((verb, "tales", 5, 5, false), (json.GetProperty("verb").GetString(), json.GetProperty("model").GetString(), Integer("requests"), Integer("completed"), json.GetProperty("cancelled").GetBoolean()));
        Assert.Equal((20, 3, 32), (Integer("gen_tokens"), Integer("seed"), Integer("shared_prefix")));
        Assert.InRange(Integer("prompt_tokens"), 5 * (32 + 10), 5 * (32 + 30));
        double seconds = Number("seconds");
        Assert.True(seconds > 0);
        Assert.Equal(20 / seconds, Number("output_tok_per_s"), 1e-6 * Number("output_tok_per_s"));
        Assert.Equal((20 + Integer("prompt_tokens")) / seconds, Number("total_tok_per_s"), 1e-6 * Number("total_tok_per_s"));
        Assert.Equal(5 / seconds, Number("requests_per_s"), 1e-6 * Number("requests_per_s"));
        Assert.Equal((double)Integer("cached_prompt_tokens") / Integer("prompt_tokens"), Number("prefix_hit_rate"), 1e-9);
        if (verb == "latency")
        {
            // Each but the first finds the two pages of the prefix.
            Assert.Equal(4 * 32, Integer("cached_prompt_tokens"));
        }

        foreach ((string name, int count) in new[] { ("ttft_ms", 5), ("tpot_ms", 5), ("itl_ms", 15), ("e2e_ms", 5), ("queue_ms", 5) })
        {
            JsonElement d = json.GetProperty(name);
            Assert.Equal(count, d.GetProperty("count").GetInt32());
            double[] ascending = [0, .. new[] { "p50", "p90", "p99", "max" }.Select(p => d.GetProperty(p).GetDouble())];
            Assert.Equal(ascending.Order(), ascending);
            Assert.InRange(d.GetProperty("mean").GetDouble(), 0, ascending[^1]);
        }

        Assert.True(json.GetProperty("queue_ms").GetProperty("mean").GetDouble() <= json.GetProperty("ttft_ms").GetProperty("mean").GetDouble());
        Assert.True(json.GetProperty("ttft_ms").GetProperty("mean").GetDouble() <= json.GetProperty("e2e_ms").GetProperty("mean").GetDouble());
        Assert.Equal(rate.Length > 0, json.TryGetProperty("goodput_per_s", out JsonElement goodput));
        Assert.True(rate.Length == 0 || (Integer("good") == 5 && goodput.GetDouble() == Number("requests_per_s")));

        XElement picture = XElement.Parse(File.ReadAllText(folder["all.svg"]));
        Assert.Equal("svg", picture.Name.LocalName);
        Assert.Equal(7, picture.Elements().Count(e => e.Name.LocalName == "polyline"));

        int Integer(string name) => json.GetProperty(name).GetInt32();

        double Number(string name) => json.GetProperty(name).GetDouble();
    }

    [Theory]
    [MemberData(nameof(Verbs))]
    public void Each_verb_prints_a_table(string verb, string rate)
    {
        string[] given = rate.Length == 0 ? [] : ["--rate", rate, "--ttft-bound", "1e9"];
        string[] engine = ["--preset", "latency", "--max-sequences", "2", "--token-budget", "16", "--cache-tokens", "256", "--no-prefix-cache", "--no-cascade", "--policy", "longest-prefix-first", "--chunk", "8"];
        (int code, string output, string error) = ConsoleProgram.Run([], "", ["bench", verb, Tales, .. Few, .. given, .. engine]);
        Assert.True(code == 0, error);
        Assert.Equal(10 + (rate.Length == 0 ? 0 : 1), output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        foreach (string expected in new[] { $"tales: {verb}, 5 requests", "5 of 5 requests", "TTFT", "TPOT", "ITL", "end to end", "queue", "prefix hits 0.0%", "longest-prefix-first" })
        {
            Assert.Contains(expected, output, StringComparison.Ordinal);
        }

        Assert.Equal(rate.Length > 0, output.Contains("goodput", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("bench", "serve", "m.gguf")]
    [InlineData("bench", "serve", "m.gguf", "--rate", "fast")]
    [InlineData("bench", "throughput")]
    [InlineData("bench", "throughput", "m.gguf", "--rate", "2")]
    [InlineData("bench", "latency", "m.gguf", "--ttft-bound", "2")]
    [InlineData("bench", "throughput", "m.gguf", "--prompt-tokens", "0")]
    [InlineData("bench", "throughput", "m.gguf", "--gen-tokens", "9-3")]
    [InlineData("bench", "throughput", "m.gguf", "--gen-tokens", "many")]
    [InlineData("bench", "throughput", "m.gguf", "--lengths", "normal")]
    [InlineData("bench", "throughput", "m.gguf", "--lengths", "uniform", "--prompt-tokens", "1-2", "--gen-tokens", "1-2")]
    [InlineData("bench", "throughput", "m.gguf", "--preset", "both")]
    [InlineData("bench", "throughput", "m.gguf", "--policy", "lifo")]
    [InlineData("bench", "throughput", "m.gguf", "--batch", "2")]
    public void Wrong_usage_is_code_2(params string[] arguments)
    {
        (int code, string output, string error) = ConsoleProgram.Run([], "", arguments);
        Assert.Equal((2, ""), (code, output));
        Assert.StartsWith("sluice: ", error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("--requests", "0")]
    [InlineData("--warmup", "-1")]
    [InlineData("--shared-prefix", "-1")]
    [InlineData("--max-sequences", "5000")]
    [InlineData("--token-budget", "0")]
    [InlineData("--cache-tokens", "0")]
    [InlineData("--rate", "0")]
    [InlineData("--rate", "NaN")]
    [InlineData("--ttft-bound", "0")]
    [InlineData("--tpot-bound", "-3")]
    [InlineData("--plot", "no-such-folder/x.svg")]
    public void A_number_out_of_range_is_one_line_and_code_1_before_anything_runs(string option, string value)
    {
        string[] rate = option == "--rate" ? [] : ["--rate", "2"];
        (int code, string output, string error) = ConsoleProgram.Run([], "", ["bench", "serve", "no-such-file.gguf", option, value, .. rate]);
        Assert.Equal((1, ""), (code, output));
        Assert.Contains(option, error, StringComparison.Ordinal);
        Assert.Single(error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    [Fact]
    public void Requests_that_do_not_fit_are_one_line_and_code_1()
    {
        (int code, string output, string error) = ConsoleProgram.Run([], "", ["bench", "throughput", Tales, "--device", "cpu", "--prompt-tokens", "5000"]);
        Assert.Equal((1, ""), (code, output));
        Assert.Contains("5,000 prompt tokens", error, StringComparison.Ordinal);
    }
}
