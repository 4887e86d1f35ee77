using System.CommandLine;
using System.Text.Json;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Console;

/// <summary>sluice inspect MODEL: what a model's files hold, without loading its weights.</summary>
internal static class InspectCommand
{
    public static Command Create()
    {
        Argument<string> model = new("MODEL") { Description = ModelArguments.ModelText };
        Option<bool> tensors = new("--tensors") { Description = "List every tensor" };
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("inspect", "Show what a model's files hold.") { model, tensors, json };
        command.SetAction(async (parsed, cancellation) =>
        {
            using ModelSource source = ModelSource.Open(await ModelArguments.ResolveAsync(parsed.GetValue(model)!, cancellation));
            ModelConfig c = source.ReadConfig();
            Tokenizer tokenizer = source.ReadTokenizer();
            IReadOnlyList<TensorInfo> all = source.Tensors;
            InspectOutput o = new(
                source.Path, source.Format, source.Length, c.Architecture.Name, c.Name, c.LayerCount, c.HiddenSize, c.HeadCount, c.KvHeadCount, c.HeadDim, c.FeedForwardSize, c.VocabularySize, c.ContextLength, tokenizer.Model,
                all.GroupBy(t => t.Type).ToDictionary(g => g.Key, g => g.Count()),
                [.. source.Describe().Select(e => new MetadataOutput(e.Key, e.Value))],
                [.. all.Select(t => new TensorOutput(t.Name, t.Type, [.. t.Shape], t.Bytes))]);
            if (parsed.GetValue(json))
            {
                System.Console.Out.WriteLine(JsonSerializer.Serialize(o, JsonOutput.Lines.InspectOutput));
                return 0;
            }

            TextWriter w = System.Console.Out;
            w.WriteLine($"{o.Name} ({o.Architecture}; {o.Format}), {o.Bytes / 1e6:0.0} MB");
            w.WriteLine($"  {o.Layers} layers, {o.HiddenSize} wide, {o.Heads} heads and {o.KvHeads} KV heads of {o.HeadDim}, feed-forward {o.FeedForwardSize}");
            w.WriteLine($"  vocabulary {o.VocabularySize:N0} ({o.Tokenizer}), context {o.ContextLength:N0}{(c.TiedEmbeddings ? ", tied embeddings" : "")}");
            w.WriteLine($"  tensors: {string.Join(", ", o.TensorTypes.Select(t => $"{t.Value} {t.Key}"))}");
            w.WriteLine("metadata:");
            foreach (MetadataOutput m in o.Metadata)
            {
                string value = m.Value.ReplaceLineEndings("\\n");
                w.WriteLine($"  {m.Key} = {(value.Length > 100 ? value[..100] + "..." : value)}");
            }

            if (parsed.GetValue(tensors))
            {
                w.WriteLine("tensors:");
                foreach (TensorOutput t in o.Tensors)
                {
                    w.WriteLine($"  {t.Name,-32} {t.Type,-6} {string.Join(" x ", t.Shape),-20} {t.Bytes,14:N0} bytes");
                }
            }

            return 0;
        });
        return command;
    }
}
