using System.Globalization;
using System.Text.Json;
using Sluice.Interop;
using Sluice.Loading;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Conversion;

/// <summary>A model as a folder in the form of Hugging Face's libraries: config.json, safetensors in shards of at most 5 GB, tokenizer files, chat template.</summary>
internal static class HuggingFaceModelWriter
{
    private const long MostShardBytes = 5_000_000_000;

    public static ConversionReport Write(
        string folder, ModelConfig config, ModelTensors tensors, Tokenizer tokenizer, string? template, TensorType? type,
        ComputeStream stream, IProgress<ByteProgress>? progress, CancellationToken cancellation)
    {
        List<OutputTensor> plan = Plan(config, tensors, type);
        TensorType most = plan.Where(t => !t.IsVector).GroupBy(t => t.Type).MaxBy(g => g.Sum(t => t.Bytes))!.Key;
        WriteJson(folder, "config.json", json => HuggingFaceConfigWriter.Write(json, config, tokenizer, most));
        WriteTokenizer(folder, config, tokenizer, template);
        List<List<OutputTensor>> shards = Shards(plan);
        Action<ReadOnlySpan<byte>> write = _ => { };
        TensorWriter values = new(stream, plan, bytes => write(bytes), progress, cancellation);
        for (int i = 0; i < shards.Count; i++)
        {
            using FileStream file = new(Path.Combine(folder, ShardName(i, shards.Count)), FileMode.CreateNew, FileAccess.Write, FileShare.None, 1);
            SafetensorsWriter writer = new(file);
            writer.AddMetadata("format", "pt");
            shards[i].ForEach(t => writer.AddTensor(t.Name, TensorTypes.Name(t.Type), t.IsVector ? [t.Columns] : [t.Rows, t.Columns]));
            write = writer.Write;
            shards[i].ForEach(values.Write);
            writer.Finish();
        }

        if (shards.Count > 1)
        {
            WriteIndex(folder, shards);
        }

        return values.Report();
    }

    private static List<OutputTensor> Plan(ModelConfig config, ModelTensors tensors, TensorType? type)
    {
        Architecture family = config.Architecture;
        Func<int, int>? order = config.RopeKind == RopeKind.Half ? null : HeadOrder.FromPairs(config.HeadDim, config.Ropes[0].Dimensions);
        List<OutputTensor> plan = [];
        foreach (string name in tensors.All.Keys)
        {
            bool turned = name.Contains(".attn_q.", StringComparison.Ordinal) || name.Contains(".attn_k.", StringComparison.Ordinal);
            IReadOnlyList<ModelTensor> sources = [tensors[name]];
            string own = HuggingFaceNames.Of(name, family)[0];
            if (family.IsFused && FusedNames.Of(name) is { } fused)
            {
                if (fused.Parts[0] != name)
                {
                    continue;
                }

                (own, sources) = (HuggingFaceNames.Of(fused.Name, family)[^1], [.. fused.Parts.Select(p => tensors[p])]);
            }

            // Norms keep f32: they are small, and exact.
            ModelTensor first = sources[0];
            TensorType kept = GgufModel.TypeOf(first.Encoding) is { } t && TensorTypes.IsFloat(t) ? t : TensorType.F16;
            plan.Add(new OutputTensor
            {
                Name = own,
                Type = first.Rank == 1 ? TensorType.F32 : type ?? kept,
                Sources = sources,
                RowOf = turned ? order : null,
                Plus = family.NormsLessOne && name.EndsWith("norm.weight", StringComparison.Ordinal) ? -1 : 0,
            });
        }

        return plan;
    }

    private static List<List<OutputTensor>> Shards(List<OutputTensor> plan)
    {
        List<List<OutputTensor>> shards = [[]];
        long bytes = 0;
        foreach (OutputTensor tensor in plan)
        {
            if (bytes > 0 && bytes + tensor.Bytes > MostShardBytes)
            {
                shards.Add([]);
                bytes = 0;
            }

            shards[^1].Add(tensor);
            bytes += tensor.Bytes;
        }

        return shards;
    }

    private static string ShardName(int index, int count) =>
        count == 1 ? "model.safetensors" : string.Create(CultureInfo.InvariantCulture, $"model-{index + 1:D5}-of-{count:D5}.safetensors");

    private static void WriteIndex(string folder, List<List<OutputTensor>> shards) => WriteJson(folder, "model.safetensors.index.json", json =>
    {
        json.WriteStartObject("metadata");
        json.WriteNumber("total_size", shards.Sum(s => s.Sum(t => t.Bytes)));
        json.WriteEndObject();
        json.WriteStartObject("weight_map");
        for (int i = 0; i < shards.Count; i++)
        {
            shards[i].ForEach(t => json.WriteString(t.Name, ShardName(i, shards.Count)));
        }

        json.WriteEndObject();
    });

    private static void WriteTokenizer(string folder, ModelConfig config, Tokenizer tokenizer, string? template)
    {
        File.WriteAllBytes(Path.Combine(folder, "tokenizer.json"), TokenizerWriter.ToTokenizerJson(tokenizer));
        WriteJson(folder, "tokenizer_config.json", json =>
        {
            json.WriteString("tokenizer_class", "PreTrainedTokenizerFast");
            json.WriteNumber("model_max_length", config.ContextLength);
            json.WriteBoolean("add_bos_token", tokenizer.AddsBos);
            json.WriteBoolean("add_eos_token", tokenizer.AddsEos);
            foreach ((string key, int? id) in new[] { ("bos_token", tokenizer.BosId), ("eos_token", tokenizer.EosId), ("unk_token", tokenizer.UnknownId) })
            {
                if (id is { } known)
                {
                    json.WriteString(key, tokenizer.NameOf(known));
                }
            }

            if (template is not null)
            {
                json.WriteString("chat_template", template);
            }
        });
        WriteJson(folder, "generation_config.json", json => HuggingFaceConfigWriter.WriteTokens(json, tokenizer));
    }

    private static void WriteJson(string folder, string name, Action<Utf8JsonWriter> write)
    {
        using FileStream file = File.Create(Path.Combine(folder, name));
        using Utf8JsonWriter json = new(file, new JsonWriterOptions { Indented = true });
        json.WriteStartObject();
        write(json);
        json.WriteEndObject();
    }
}
