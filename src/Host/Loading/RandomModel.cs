using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;
using System.Text;

namespace Sluice.Loading;

/// <summary>How far a long work on bytes has come.</summary>
/// <param name="Done">Bytes done.</param>
/// <param name="Total">Bytes in all.</param>
public readonly record struct ByteProgress(long Done, long Total);

/// <summary>
/// Makes GGUF files of true sizes with random weights, for tests and benchmarks where no model can be had. The same shape, type and
/// seed give the same bytes on every machine. Weights are scaled so that activations and logits stay near one.
/// </summary>
public static class RandomModel
{
    private const int ChunkValues = 1 << 18;

    /// <summary>The types that matrices can be stored in.</summary>
    public static IReadOnlyList<TensorType> Types { get; } = [TensorType.F16, TensorType.BF16, TensorType.Q8_0, TensorType.Q4_0, TensorType.Q4_K];

    private readonly record struct Plan(string Name, TensorType Type, long Columns, long Rows, float Scale, float Mean);

    /// <summary>Writes a model. The file appears under its name when it is complete; an older one is replaced.</summary>
    /// <param name="path">The file to make.</param>
    /// <param name="shape">The sizes.</param>
    /// <param name="type">How matrices are stored. Norms and biases are F32; the output projection, tied or not, is Q8_0 in a Q4_0 file and Q6_K in a Q4_K one, as quantisers keep it finer.</param>
    /// <param name="seed">Another seed gives other weights.</param>
    /// <param name="mixture">
    /// With Q4_K: the mixture that quantisers call Q4_K_M instead. Values and the feed-forward's way down are Q6_K in the first and last eighth of the layers and in each third
    /// between; where a row holds no whole blocks of 256, Q5_0 stands for Q4_K and Q8_0 for Q6_K.
    /// </param>
    /// <param name="progress">Told after each piece of up to 1 MB.</param>
    /// <param name="cancellation">Stops the work and removes the unfinished file.</param>
    /// <exception cref="ArgumentException">The type is none of <see cref="Types"/>, or the shape's rows hold no whole blocks of it, or a mixture is asked for of another type than Q4_K.</exception>
    /// <exception cref="OperationCanceledException">The work was cancelled.</exception>
    /// <exception cref="IOException">The file cannot be written.</exception>
    /// <exception cref="UnauthorizedAccessException">The file cannot be written.</exception>
    public static void Write(
        string path, RandomModelShape shape, TensorType type, ulong seed = 0, bool mixture = false, IProgress<ByteProgress>? progress = null, CancellationToken cancellation = default)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        ArgumentNullException.ThrowIfNull(shape);
        if (!Types.Contains(type))
        {
            throw new ArgumentException($"{TensorTypes.Name(type)} cannot be made; {string.Join(", ", Types.Select(TensorTypes.Name))} can", nameof(type));
        }

        if (mixture && type != TensorType.Q4_K)
        {
            throw new ArgumentException($"there is no mixture of {TensorTypes.Name(type)}: Q4_K has one", nameof(mixture));
        }

        int block = TensorTypes.BlockValues(mixture ? TensorType.Q5_0 : type);
        if (shape.Hidden % block != 0 || shape.FeedForward % block != 0)
        {
            throw new ArgumentException($"{shape.Name} has rows of {shape.Hidden:N0} and {shape.FeedForward:N0} values, which are no whole blocks of {block} as {TensorTypes.Name(type)} has: take another type", nameof(type));
        }

        OutputPlace.File(path, stream =>
        {
            Write(stream, shape, type, seed, mixture, progress, cancellation);
            return 0;
        });
    }

    /// <summary>Writes a model to a stream, which need not seek.</summary>
    /// <inheritdoc cref="Write(string, RandomModelShape, TensorType, ulong, bool, IProgress{ByteProgress}?, CancellationToken)"/>
    internal static void Write(Stream stream, RandomModelShape shape, TensorType type, ulong seed, bool mixture, IProgress<ByteProgress>? progress, CancellationToken cancellation)
    {
        GgufWriter writer = new(stream);
        AddMetadata(writer, shape, type, mixture);
        List<Plan> plans = [.. Tensors(shape, type, mixture)];
        long total = 0;
        foreach (Plan plan in plans)
        {
            if (plan.Rows == 1)
            {
                writer.AddTensor(plan.Name, plan.Type, plan.Columns);
            }
            else
            {
                writer.AddTensor(plan.Name, plan.Type, plan.Columns, plan.Rows);
            }

            total += TensorTypes.Bytes(plan.Type, plan.Columns * plan.Rows);
        }

        // A piece a core at a time, for the finer types take long to fit; written in their order.
        long done = 0;
        float[][] values = [.. Enumerable.Range(0, Environment.ProcessorCount).Select(_ => new float[ChunkValues])];
        byte[][] bytes = [.. values.Select(_ => new byte[ChunkValues * sizeof(float)])];
        foreach (Plan plan in plans)
        {
            (uint, uint) key = KeyOf(seed, plan.Name);
            long count = plan.Columns * plan.Rows;
            for (long first = 0; first < count; first += (long)values.Length * ChunkValues)
            {
                cancellation.ThrowIfCancellationRequested();
                int pieces = (int)Math.Min(values.Length, (count - first + ChunkValues - 1) / ChunkValues);
                int[] stored = new int[pieces];
                Parallel.For(0, pieces, i =>
                {
                    long at = first + ((long)i * ChunkValues);
                    Span<float> piece = values[i].AsSpan(0, (int)Math.Min(ChunkValues, count - at));
                    if (plan.Name == "rope_freqs.weight")
                    {
                        shape.RopeFactors().CopyTo(piece);
                    }
                    else
                    {
                        Fill(piece, key, at, plan.Scale, plan.Mean);
                    }

                    stored[i] = (int)TensorTypes.Bytes(plan.Type, piece.Length);
                    Quantizer.Quantize(plan.Type, piece, bytes[i].AsSpan(0, stored[i]));
                });
                for (int i = 0; i < pieces; i++)
                {
                    writer.Write(bytes[i].AsSpan(0, stored[i]));
                    done += stored[i];
                    progress?.Report(new ByteProgress(done, total));
                }
            }
        }

        writer.Finish();
    }

    // As quantisers mix types of four bits and more: rows that hold no whole blocks of 256 take the next larger type of 32.
    private static TensorType Mixed(TensorType type, long columns) => columns % TensorTypes.BlockValues(type) == 0 ? type : type == TensorType.Q4_K ? TensorType.Q5_0 : TensorType.Q8_0;

    private static IEnumerable<Plan> Tensors(RandomModelShape s, TensorType type, bool mixture)
    {
        const TensorType F32 = TensorType.F32;
        TensorType head = type switch { TensorType.Q4_0 => TensorType.Q8_0, TensorType.Q4_K => TensorType.Q6_K, _ => type };
        TensorType wide = mixture ? Mixed(type, s.Hidden) : type; // of matrices with a row as wide as the residual stream
        head = mixture ? Mixed(head, s.Hidden) : head;
        int eighth = s.Layers / 8;
        bool finer(int layer) => mixture && (layer < eighth || layer >= 7 * s.Layers / 8 || (layer - eighth) % 3 == 2);
        float Scale(int inputs) => 1f / MathF.Sqrt(inputs);

        // What is added to the residual stream shrinks with depth, so that the stream's size does not grow with it.
        float residual = 1f / MathF.Sqrt(2f * s.Layers);
        int keys = s.KvHeads * s.HeadDim;
        yield return new("token_embd.weight", s.Tied ? head : wide, s.Hidden, s.Vocabulary, Scale(s.Hidden), 0);
        if (s.Llama3RopeFactor > 0)
        {
            yield return new("rope_freqs.weight", F32, s.HeadDim / 2, 1, 0, 0);
        }

        for (int layer = 0; layer < s.Layers; layer++)
        {
            string block = $"blk.{layer}.";
            yield return new(block + "attn_norm.weight", F32, s.Hidden, 1, 0.05f, 1);
            yield return new(block + "attn_q.weight", wide, s.Hidden, s.Hidden, Scale(s.Hidden), 0);
            yield return new(block + "attn_k.weight", wide, s.Hidden, keys, Scale(s.Hidden), 0);
            yield return new(block + "attn_v.weight", finer(layer) ? Mixed(TensorType.Q6_K, s.Hidden) : wide, s.Hidden, keys, Scale(s.Hidden), 0);
            if (s.HasBias)
            {
                yield return new(block + "attn_q.bias", F32, s.Hidden, 1, 0.1f, 0);
                yield return new(block + "attn_k.bias", F32, keys, 1, 0.1f, 0);
                yield return new(block + "attn_v.bias", F32, keys, 1, 0.1f, 0);
            }

            yield return new(block + "attn_output.weight", wide, s.Hidden, s.Hidden, Scale(s.Hidden) * residual, 0);
            yield return new(block + "ffn_norm.weight", F32, s.Hidden, 1, 0.05f, 1);
            yield return new(block + "ffn_gate.weight", wide, s.Hidden, s.FeedForward, Scale(s.Hidden), 0);
            yield return new(block + "ffn_up.weight", wide, s.Hidden, s.FeedForward, Scale(s.Hidden), 0);
            yield return new(block + "ffn_down.weight", finer(layer) ? Mixed(TensorType.Q6_K, s.FeedForward) : mixture ? Mixed(type, s.FeedForward) : type, s.FeedForward, s.Hidden, Scale(s.FeedForward) * residual, 0);
        }

        yield return new("output_norm.weight", F32, s.Hidden, 1, 0.05f, 1);
        if (!s.Tied)
        {
            yield return new("output.weight", head, s.Hidden, s.Vocabulary, Scale(s.Hidden), 0);
        }
    }

    private static void AddMetadata(GgufWriter writer, RandomModelShape s, TensorType type, bool mixture)
    {
        string a = s.Architecture;
        writer.AddMetadata("general.architecture", GgufValue.Of(a));
        writer.AddMetadata("general.name", GgufValue.Of($"random {s.Name}"));
        writer.AddMetadata("general.quantization_version", GgufValue.Of(2u));
        writer.AddMetadata("general.file_type", GgufValue.Of(type switch { TensorType.F16 => 1u, TensorType.Q4_0 => 2u, TensorType.Q4_K => mixture ? 15u : 14u, TensorType.BF16 => 32u, _ => 7u }));
        writer.AddMetadata($"{a}.block_count", GgufValue.Of((uint)s.Layers));
        writer.AddMetadata($"{a}.context_length", GgufValue.Of((uint)s.Context));
        writer.AddMetadata($"{a}.embedding_length", GgufValue.Of((uint)s.Hidden));
        writer.AddMetadata($"{a}.feed_forward_length", GgufValue.Of((uint)s.FeedForward));
        writer.AddMetadata($"{a}.attention.head_count", GgufValue.Of((uint)s.Heads));
        writer.AddMetadata($"{a}.attention.head_count_kv", GgufValue.Of((uint)s.KvHeads));
        writer.AddMetadata($"{a}.attention.layer_norm_rms_epsilon", GgufValue.Of(s.NormEpsilon));
        writer.AddMetadata($"{a}.rope.freq_base", GgufValue.Of(s.RopeBase));
        writer.AddMetadata($"{a}.rope.dimension_count", GgufValue.Of((uint)s.HeadDim));
        writer.AddMetadata($"{a}.vocab_size", GgufValue.Of((uint)s.Vocabulary));

        RandomVocabulary vocabulary = RandomVocabulary.Create(s);
        writer.AddMetadata("tokenizer.ggml.model", GgufValue.Of("gpt2"));
        writer.AddMetadata("tokenizer.ggml.pre", GgufValue.Of(vocabulary.PreTokenizer));
        writer.AddMetadata("tokenizer.ggml.tokens", GgufValue.OfArray(vocabulary.Tokens));
        writer.AddMetadata("tokenizer.ggml.token_type", GgufValue.OfArray(CollectionsMarshal.AsSpan(vocabulary.Kinds)));
        writer.AddMetadata("tokenizer.ggml.merges", GgufValue.OfArray(vocabulary.Merges));
        writer.AddMetadata("tokenizer.ggml.bos_token_id", GgufValue.Of((uint)vocabulary.Bos));
        writer.AddMetadata("tokenizer.ggml.eos_token_id", GgufValue.Of((uint)vocabulary.Eos));
        if (vocabulary.Eot is int eot)
        {
            writer.AddMetadata("tokenizer.ggml.eot_token_id", GgufValue.Of((uint)eot));
        }

        writer.AddMetadata("tokenizer.ggml.add_bos_token", GgufValue.Of(vocabulary.AddsBos));
    }

    // FNV-1a of the tensor's name, mixed with the seed as in splitmix64: a tensor's values do not depend on the others.
    private static (uint First, uint Second) KeyOf(ulong seed, string name)
    {
        ulong hash = 0xCBF29CE484222325;
        foreach (byte b in Encoding.UTF8.GetBytes(name))
        {
            hash = (hash ^ b) * 0x100000001B3;
        }

        ulong mixed = hash + (seed * 0x9E3779B97F4A7C15);
        mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9;
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB;
        mixed ^= mixed >> 31;
        return ((uint)mixed, (uint)(mixed >> 32));
    }

    /// <summary>
    /// Value i is a hash of (key, start + i): the sum of its four bytes is near a normal distribution (Irwin-Hall of 4). The
    /// integer hash is of the "lowbias32" form (C. Wellons, 2018).
    /// </summary>
    private static void Fill(Span<float> values, (uint First, uint Second) key, long start, float scale, float mean)
    {
        const float Deviation = 147.8f; // of the sum of four uniform bytes: sqrt(4 * (256^2 - 1) / 12)
        const int Lanes = 8;
        Vector256<uint> lane = Vector256.Create(0u, 1, 2, 3, 4, 5, 6, 7);
        Vector256<float> factor = Vector256.Create(scale / Deviation);
        Vector256<float> offset = Vector256.Create(mean - (510f * (scale / Deviation)));
        Vector256<uint> low = Vector256.Create(0xFFu);
        Span<float> tail = stackalloc float[Lanes];
        for (int at = 0; at < values.Length; at += Lanes)
        {
            ulong index = (ulong)(start + at);
            Vector256<uint> x = Vector256.Create((uint)index) + lane;
            x = (x * 0x9E3779B1u) + Vector256.Create(key.First + (uint)(index >> 32));
            x ^= x >>> 16;
            x *= 0x7FEB352Du;
            x ^= x >>> 15;
            x *= 0x846CA68Bu;
            x ^= Vector256.Create(key.Second);
            x ^= x >>> 16;
            Vector256<uint> sum = (x & low) + ((x >>> 8) & low) + ((x >>> 16) & low) + (x >>> 24);
            Vector256<float> value = (Vector256.ConvertToSingle(sum.AsInt32()) * factor) + offset;
            if (at + Lanes <= values.Length)
            {
                value.CopyTo(values[at..]);
            }
            else
            {
                value.CopyTo(tail);
                tail[..(values.Length - at)].CopyTo(values[at..]);
            }
        }
    }
}
