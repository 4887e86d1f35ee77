using Sluice.Interop;
using Sluice.Models;
using Sluice.Templates;
using Sluice.Tokenization;
using Sluice.Tuning;

namespace Sluice;

/// <summary>How a model is loaded and run; what is not set has a sensible default.</summary>
public sealed record ModelOptions
{
    /// <summary>Where it runs; null: the best that is here, a GPU before the CPU.</summary>
    public Backend? Device { get; init; }

    /// <summary>Which GPU.</summary>
    public int Ordinal { get; init; }

    /// <summary>cpu: threads; 0: one a physical core.</summary>
    public int Threads { get; init; }

    /// <summary>cpu: the instruction set.</summary>
    public Isa Isa { get; init; }

    /// <summary>Tokens that a session holds; null: the model's own context, 8,192 at most.</summary>
    public int? ContextLength { get; init; }

    /// <summary>
    /// The element type of activations within a block (the residual stream is always f32); null: f32 for f32 models and on reference and cpu, which
    /// compute in f32 anyway; on GPUs bf16 for bf16 models and for families that leave the range of f16, f16 for the others.
    /// </summary>
    public DType? ActivationType { get; init; }

    /// <summary>The KV cache's element type; null: the activations' on GPUs; else f32 for f32 models and on the reference backend, f16 for the others.</summary>
    public DType? KvType { get; init; }

    /// <summary>Tokens of a prompt that are computed in one step.</summary>
    public int ChunkSize { get; init; } = 512;

    /// <summary>reference: naive f32 loops rounded by each op's precision record, instead of sums in double.</summary>
    internal bool Rounded { get; init; }

    /// <summary>On GPUs: decode steps of up to 8 tokens round activations to int8 by blocks of 32 where they meet GGUF's block types, as the cpu backend always does, for
    /// integer products. Faster where arithmetic bounds; `sluice eval` tells what it loses.</summary>
    public bool Int8Activations { get; init; }

    /// <summary>cuda, simt: a token's logits are the same to the bit whatever batch, chunk or shared prefix they are computed in, as they always are elsewhere. Slower.</summary>
    public bool Invariant { get; init; }

    /// <summary>Map the file into memory; false where it may change underneath.</summary>
    public bool MemoryMap { get; init; } = true;

    /// <summary>
    /// cpu: keep the packed weights in a file beside the model (in the folder, where it is one), as large as the weights; a later load with this set maps that file and packs
    /// nothing. One that does not fit the model, the device or this version of the library, or is damaged in its table, is written anew; where none can be written,
    /// <see cref="Model.PackedCopy"/> says why, and the model loads without.
    /// </summary>
    public bool CachePacked { get; init; }

    /// <summary>With <see cref="CachePacked"/>: compare every byte of the packed copy with its checksum first, which reads all of it. Otherwise its table is checked, and every length.</summary>
    public bool VerifyPacked { get; init; }
}

/// <summary>A model on a device: weights, tokenizer, configuration. Sessions share it; safe from any thread.</summary>
public sealed class Model : IDisposable
{
    private const int DefaultContext = 8_192;
    private const int ScoredRows = 64;
    private readonly ModelOptions _options;

    private readonly Lazy<ChatTemplate?> _template;

    private Model(ModelOptions options, Device device, ModelConfig config, Tokenizer tokenizer, string? template, ModelWeights weights)
    {
        (_options, Device, Config, Tokenizer, Weights) = (options, device, config, tokenizer, weights);
        _template = new Lazy<ChatTemplate?>(() => template is null ? null : ChatTemplate.Parse(template, $"{config.Name}'s chat template"));
        ContextLength = options.ContextLength ?? Math.Min(config.ContextLength, DefaultContext);
    }

    /// <summary>The model's sizes.</summary>
    public ModelConfig Config { get; }

    /// <summary>Text to tokens and back.</summary>
    public Tokenizer Tokenizer { get; }

    /// <summary>How the model wants conversations written, or null where its files hold no template.</summary>
    /// <exception cref="ChatTemplateException">The template is not the Jinja that is supported.</exception>
    public ChatTemplate? ChatTemplate => _template.Value;

    /// <summary>How the model's makers want tokens to be chosen, or null where its files do not say.</summary>
    public SamplingParameters? SuggestedSampling { get; private init; }

    /// <summary>Where it runs.</summary>
    public DeviceInfo DeviceInfo => Device.Info;

    /// <summary>Tokens that a session holds unless told otherwise.</summary>
    public int ContextLength { get; }

    /// <summary>The element type of activations within a block.</summary>
    public DType ActivationType { get; private init; }

    /// <summary>The KV cache's element type.</summary>
    public DType KvType { get; private init; }

    /// <summary>Whether the device's kernels change where it was measured (<see cref="TunedDevice"/>); false: where the library guesses, or on a backend of one way.</summary>
    public bool IsTuned { get; private init; }

    /// <summary>What became of the packed copy of the weights; null where none was asked for.</summary>
    public PackedCopy? PackedCopy { get; private init; }

    /// <summary>Bytes of device memory that the weights take.</summary>
    public ulong WeightBytes => Weights.Bytes;

    /// <summary>Bytes of weights that one decoded token reads.</summary>
    public ulong BytesPerToken => Weights.BytesPerToken;

    internal Device Device { get; }

    internal ModelWeights Weights { get; }

    /// <summary>The best backend that is here: a GPU where there is one, else the CPU.</summary>
    public static Backend BestBackend => Device.Count(Backend.Cuda) > 0 ? Backend.Cuda : Backend.Cpu;

    /// <summary>Loads a GGUF file (or any part of a split one), or a Hugging Face folder.</summary>
    /// <param name="path">The file or folder.</param>
    /// <param name="options">Device and sizes.</param>
    /// <param name="progress">Told after each tensor.</param>
    /// <param name="cancellationToken">Looked at between tensors; what was loaded is freed.</param>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="IOException">The system cannot read a file.</exception>
    /// <exception cref="UnauthorizedAccessException">A file may not be read.</exception>
    /// <exception cref="SluiceModelException">The file is malformed, or of a kind that is not supported; the text says where and why.</exception>
    /// <exception cref="SluiceException">No such device, or no memory.</exception>
    /// <exception cref="ArgumentException">An option out of its range.</exception>
    public static Task<Model> LoadAsync(string path, ModelOptions? options = null, IProgress<LoadProgress>? progress = null, CancellationToken cancellationToken = default) =>
        Task.Run(() => Load(path, options ?? new ModelOptions(), progress, cancellationToken), cancellationToken);

    /// <summary>A sequence of its own, with pages for <see cref="ContextLength"/> tokens.</summary>
    /// <exception cref="SluiceException">The device has no memory for it; the text says how much was wanted and free.</exception>
    public Session CreateSession() => new(this, ContextLength, _options.ChunkSize, ScoredRows);

    /// <summary>What runs many requests on the model at once. The model must outlive it.</summary>
    /// <param name="options">How it schedules, and what it may hold.</param>
    /// <exception cref="ArgumentException">An option out of its range.</exception>
    /// <exception cref="SluiceException">The device has no memory for it; the text says how much was wanted and free.</exception>
    public Engine CreateEngine(EngineOptions? options = null) => new(this, options ?? new EngineOptions());

    /// <summary>Generates an answer to one prompt in a session of its own.</summary>
    /// <inheritdoc cref="Session.GenerateAsync(string, SamplingParameters, CancellationToken)"/>
    public async IAsyncEnumerable<GeneratedToken> GenerateAsync(
        string prompt, SamplingParameters? parameters = null, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        using Session session = CreateSession();
        await foreach (GeneratedToken token in session.GenerateAsync(prompt, parameters, cancellationToken).ConfigureAwait(false))
        {
            yield return token;
        }
    }

    /// <summary>A conversation as token ids, written by the model's template. What messages hold is text and never a control token.</summary>
    /// <exception cref="ChatTemplateException">The template refuses the messages, or fails on them.</exception>
    /// <exception cref="InvalidOperationException">The model has no template.</exception>
    public int[] EncodeChat(ChatTemplateInput input) => Decoding.ChatPrompt.Encode(
        Tokenizer, ChatTemplate ?? throw new InvalidOperationException("the model's files hold no chat template: give the prompt as text"), input);

    /// <summary>Frees the weights; sessions that still run keep what they use until they are disposed.</summary>
    public void Dispose()
    {
        Weights.Dispose();
        Device.Dispose();
    }

    private static Model Load(string path, ModelOptions options, IProgress<LoadProgress>? progress, CancellationToken cancellation)
    {
        using ModelSource source = ModelSource.Open(path, options.MemoryMap);
        ModelConfig config = source.ReadConfig();
        Tokenizer tokenizer = source.ReadTokenizer().WithRows(config.VocabularySize);
        if (tokenizer.VocabularySize > config.VocabularySize)
        {
            throw new ModelFormatException(path, "", $"has a vocabulary of {tokenizer.VocabularySize:N0} tokens, and the embedding has {config.VocabularySize:N0} rows");
        }

        if (options.ContextLength is { } context && (context < 1 || context > config.ContextLength))
        {
            throw new ArgumentException($"a context of {context:N0} tokens was asked for, and the model was trained for {config.ContextLength:N0}: ask for 1 to that many");
        }

        if (options.ChunkSize is < 1 or > 65_536)
        {
            throw new ArgumentException($"a chunk of {options.ChunkSize:N0} tokens was asked for, and may be 1 to 65,536");
        }

        Backend backend = options.Device ?? BestBackend;
        (DType activations, DType kvType) = TypesOf(source, config, options, backend);
        Device device = Device.Open(new DeviceOptions(backend) { Ordinal = options.Ordinal, Threads = options.Threads, Isa = options.Isa, Rounded = options.Rounded, Int8Activations = options.Int8Activations, Invariant = options.Invariant });
        try
        {
            bool tuned = TunedDevice.Apply(device, TunedDevice.PathOf);
            using ComputeStream stream = device.CreateStream();
            ModelTensors tensors = ModelTensors.Check(source, config);
            PackedCopy? copy = null;
            ModelWeights weights = options.CachePacked
                ? PackedCopy.Load(source, tensors, config, stream, options.MemoryMap, options.VerifyPacked, progress, cancellation, out copy)
                : ModelWeights.Load(tensors, config, stream, null, progress, cancellation);
            stream.Synchronize();
            return new Model(options, device, config, tokenizer, source.ReadChatTemplate(), weights)
            {
                SuggestedSampling = source.ReadSampling(), ActivationType = activations, KvType = kvType, IsTuned = tuned, PackedCopy = copy,
            };
        }
        catch
        {
            device.Dispose();
            throw;
        }
    }

    private static (DType Activations, DType Kv) TypesOf(ModelSource source, ModelConfig config, ModelOptions options, Backend backend)
    {
        if (options.ActivationType is { } asked && asked is not (DType.F32 or DType.F16 or DType.BF16))
        {
            throw new ArgumentException($"activations of {asked} were asked for: they may be f32, f16 or bf16");
        }

        WeightEncoding? weights = source.Find("blk.0.attn_q.weight")?.Encoding;
        bool gpu = backend is Backend.Cuda or Backend.Simt, plain = weights == WeightEncoding.F32;
        DType activations = options.ActivationType ?? (!gpu || plain ? DType.F32 : weights == WeightEncoding.BF16 || config.Architecture.ExceedsF16 ? DType.BF16 : DType.F16);
        DType kv = gpu ? activations : plain || backend == Backend.Reference ? DType.F32 : DType.F16;
        return (activations, options.KvType ?? kv);
    }
}
