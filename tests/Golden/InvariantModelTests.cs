using Sluice.Interop;

namespace Sluice.Tests.Golden;

/// <summary>Whole models in the invariant mode of GPUs: a prompt in chunks of any size gives the same logits to the bit, as on the other backends.</summary>
public sealed class InvariantModelTests
{
    public static TheoryData<Backend, string, DType, DType> Rows()
    {
        TheoryData<Backend, string, DType, DType> rows = [];
        foreach (Backend backend in new[] { Backend.Simt, Backend.Cuda })
        {
            rows.Add(backend, "stories260K/stories260K-f16.gguf", DType.F16, DType.F16);
            rows.Add(backend, "stories260K/stories260K-f32.gguf", DType.F32, DType.F32);
            rows.Add(backend, "tiny/tiny-llama-q4_k_m.gguf", DType.F16, DType.I8);
            rows.Add(backend, "tiny/tiny-qwen2-q8_0.gguf", DType.BF16, DType.FP8E4M3);
        }

        return rows;
    }

    [Theory]
    [MemberData(nameof(Rows))]
    public async Task Any_chunking_gives_the_same_logits_to_the_bit(Backend backend, string file, DType activations, DType kv)
    {
        Assert.SkipWhen(Device.Count(backend) == 0, $"no {backend} device is here");
        ModelOptions options = new() { Device = backend, ActivationType = activations, KvType = kv, Invariant = true, ContextLength = 64 };
        using Model model = await Model.LoadAsync(SharedData.PathOf(["models", .. file.Split('/')]), options);
        int[] tokens = [.. Enumerable.Range(0, 22).Select(i => 260 + (37 * i % 200))];
        float[] whole;
        using (Session session = model.CreateSession())
        {
            whole = session.Logits(tokens, tokens.Length);
        }

        foreach (int chunk in new[] { 1, 9, 17 })
        {
            using Session session = model.CreateSession();
            float[] parts = session.Logits(tokens, chunk);
            int first = whole.AsSpan().CommonPrefixLength(parts);
            Assert.True(first == whole.Length, $"chunks of {chunk}: position {first / model.Tokenizer.VocabularySize}, token {first % model.Tokenizer.VocabularySize} differs");
        }
    }
}
