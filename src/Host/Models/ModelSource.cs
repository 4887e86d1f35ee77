using Sluice.Tokenization;

namespace Sluice.Models;

/// <summary>A tensor as it stands in a model's files, for people to look at.</summary>
/// <param name="Name">The name in its file.</param>
/// <param name="Type">How values are stored: <c>Q4_K</c>, <c>BF16</c>, <c>I32</c>.</param>
/// <param name="Shape">The sizes in the file's own order: GGUF has the contiguous dimension first, safetensors last.</param>
/// <param name="Bytes">Bytes in the file.</param>
public sealed record TensorInfo(string Name, string Type, IReadOnlyList<long> Shape, long Bytes);

/// <summary>
/// An open model, whatever kind of files it comes in. Tensors are found under GGUF's names (<c>blk.0.attn_q.weight</c>); everything
/// that a reader gives has been checked. Reading is thread-safe; disposing while another thread reads is not.
/// </summary>
public abstract class ModelSource : IDisposable
{
    private static readonly string[] TokenizerFiles = ["tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model"];

    private protected ModelSource(string path) => Path = path;

    /// <summary>The path as it was given.</summary>
    public string Path { get; }

    /// <summary>The kind of files in words: <c>GGUF v3</c>.</summary>
    public abstract string Format { get; }

    /// <summary>Bytes of the files that hold weights.</summary>
    public abstract long Length { get; }

    /// <summary>All tensors in the files, those that nothing uses too.</summary>
    public abstract IReadOnlyList<TensorInfo> Tensors { get; }

    /// <summary>Opens a GGUF file, any part of a split one, or a folder as Hugging Face's libraries write them.</summary>
    /// <param name="path">The file or folder.</param>
    /// <param name="memoryMap">False to read by file calls: slower, but safe for files that may change underneath.</param>
    /// <exception cref="FileNotFoundException">There is nothing of that name.</exception>
    /// <exception cref="SluiceModelException">A file is malformed, or of a kind that is not supported.</exception>
    /// <exception cref="IOException">The system cannot read a file.</exception>
    /// <exception cref="UnauthorizedAccessException">A file may not be read.</exception>
    public static ModelSource Open(string path, bool memoryMap = true)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return Directory.Exists(path) ? HuggingFaceModel.OpenFolder(path, memoryMap) : GgufModel.Open(path, memoryMap);
    }

    /// <summary>The tokenizer of a model; a folder with nothing but tokenizer files, or a GGUF file with nothing but a vocabulary, will do.</summary>
    /// <inheritdoc cref="Open"/>
    public static Tokenizer OpenTokenizer(string path)
    {
        if (Directory.Exists(path) && Array.Exists(TokenizerFiles, f => File.Exists(System.IO.Path.Combine(path, f))))
        {
            return Tokenizer.FromFolder(path);
        }

        using ModelSource source = Open(path);
        return source.ReadTokenizer();
    }

    /// <summary>Reads and checks sizes and constants; all tensors that they imply are there, of the right shape, and no others.</summary>
    /// <exception cref="ModelFormatException">A key or tensor is missing, of the wrong type or shape, or out of bounds.</exception>
    /// <exception cref="UnsupportedModelException">The architecture, a tensor type, a scaling or a tensor is not supported.</exception>
    public ModelConfig ReadConfig()
    {
        ModelConfig config = ReadUncheckedConfig();
        ModelTensors.Check(this, config);
        return config;
    }

    /// <summary>Reads the vocabulary.</summary>
    /// <exception cref="SluiceModelException">It is missing, inconsistent, or of a kind that is not supported.</exception>
    public abstract Tokenizer ReadTokenizer();

    /// <summary>The model's chat template in Jinja, or null where it has none.</summary>
    /// <exception cref="SluiceModelException">What stands in its place is no text.</exception>
    public abstract string? ReadChatTemplate();

    /// <summary>How the model's makers want tokens to be chosen, or null where the files do not say. Sizes and seeds are not in it.</summary>
    /// <exception cref="ModelFormatException">A value is no number, or out of its range.</exception>
    public abstract SamplingParameters? ReadSampling();

    /// <summary>The texts of settings that are not read into <see cref="ModelConfig"/>, for people to look at.</summary>
    public abstract IEnumerable<(string Key, string Value)> Describe();

    /// <inheritdoc/>
    public abstract void Dispose();

    /// <summary>A tensor by GGUF's name for it, or null.</summary>
    /// <exception cref="UnsupportedModelException">It is stored in a way that is not supported.</exception>
    internal abstract ModelTensor? Find(string name);

    /// <summary>True for a tensor that is known to be of no use here, so that it may be there.</summary>
    internal abstract bool IsNeedless(string tensorName, ModelConfig config);

    /// <summary>The file that a packed copy of the weights is kept in, with this behind it that names the backend.</summary>
    internal abstract string CopyPath(string suffix);

    private protected abstract ModelConfig ReadUncheckedConfig();

    private protected static SamplingParameters? Sampling(string file, double? temperature, double? topK, double? topP, double? minP, double? repetition)
    {
        if (temperature is null && topK is null && topP is null && minP is null && repetition is null)
        {
            return null;
        }

        try
        {
            // What is not said has the libraries' usual value: a temperature of 1, all tokens.
            SamplingParameters sampling = new()
            {
                Temperature = (float)(temperature ?? 1),
                TopK = (int)(topK ?? 0),
                TopP = (float)(topP ?? 1),
                MinP = (float)(minP ?? 0),
                RepetitionPenalty = (float)(repetition ?? 1),
            };
            sampling.Validate(int.MaxValue);
            return sampling;
        }
        catch (ArgumentException e)
        {
            throw new ModelFormatException(file, "", e.Message, e);
        }
    }
}
