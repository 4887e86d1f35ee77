using System.CommandLine;
using System.Text.Json;
using Sluice.Loading;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Console;

/// <summary>sluice inspect MODEL: what a file holds, without loading its weights.</summary>
internal static class InspectCommand
{
    public static Command Create()
    {
        Argument<string> model = new("MODEL") { Description = "A GGUF file" };
        Option<bool> tensors = new("--tensors") { Description = "List every tensor" };
        Option<bool> json = new("--json") { Description = "Print one JSON object" };
        Command command = new("inspect", "Show what a model file holds.") { model, tensors, json };
        command.SetAction(parsed =>
        {
            using GgufFile file = GgufFile.Open(parsed.GetValue(model)!);
            ModelConfig c = ModelConfig.FromGguf(file);
            Tokenizer tokenizer = Tokenizer.FromGguf(file);
            InspectOutput o = new(
                file.Path, file.Length, c.Architecture.Name, c.Name, c.LayerCount, c.HiddenSize, c.HeadCount, c.KvHeadCount, c.HeadDim, c.FeedForwardSize, c.VocabularySize, c.ContextLength, tokenizer.Model,
                file.Tensors.GroupBy(t => TensorTypes.Name(t.Type)).ToDictionary(g => g.Key, g => g.Count()),
                [.. file.Metadata.Entries.Select(e => new MetadataOutput(e.Key, e.Value.ToString()!))],
                [.. file.Tensors.Select(t => new TensorOutput(t.Name, TensorTypes.Name(t.Type), [.. t.Dimensions], t.ByteLength))]);
            if (parsed.GetValue(json))
            {
                System.Console.Out.WriteLine(JsonSerializer.Serialize(o, JsonOutput.Lines.InspectOutput));
                return 0;
            }

            TextWriter w = System.Console.Out;
            w.WriteLine($"{o.Name} ({o.Architecture}), {o.Bytes / 1e6:0.0} MB");
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
