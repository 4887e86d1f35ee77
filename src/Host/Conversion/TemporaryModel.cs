using Sluice.Loading;

namespace Sluice.Conversion;

/// <summary>
/// A model in another type of weights, in the system's folder for temporary files (TMPDIR where that is set). It goes away when it is disposed, when its
/// making fails or is cancelled, and when the program ends before that. A model that was loaded from it does not need it any more.
/// </summary>
public sealed class TemporaryModel : IDisposable
{
    private readonly string _folder;

    private TemporaryModel(string folder, string name)
    {
        (_folder, Path) = (folder, System.IO.Path.Combine(folder, name));
        AppDomain.CurrentDomain.ProcessExit += Remove;
    }

    /// <summary>The model's file or folder.</summary>
    public string Path { get; }

    /// <summary>What the conversion did.</summary>
    public ConversionReport Report { get; private set; } = new(new Dictionary<string, int>(), 0, 0, 0, "");

    /// <summary>Converts a model: into a folder where it is one and <paramref name="type"/> is a float type, which keeps all that it says, else into a GGUF file.</summary>
    /// <param name="input">A GGUF file or a Hugging Face folder.</param>
    /// <param name="type">How matrices are stored.</param>
    /// <param name="progress">Told after each piece, in bytes of the input's values as f32.</param>
    /// <param name="cancellation">Stops the work and removes what is unfinished.</param>
    /// <exception cref="SluiceModelException">The model is malformed, or has something that the other kind of file cannot say.</exception>
    /// <exception cref="IOException">The folder for temporary files cannot be written, or is full.</exception>
    /// <exception cref="OperationCanceledException">The work was cancelled.</exception>
    public static TemporaryModel Create(string input, TensorType type, IProgress<ByteProgress>? progress = null, CancellationToken cancellation = default) =>
        Create(input, type, Directory.CreateTempSubdirectory("sluice-model-").FullName, progress, cancellation);

    internal static TemporaryModel Create(string input, TensorType type, string folder, IProgress<ByteProgress>? progress, CancellationToken cancellation)
    {
        TemporaryModel model = new(folder, Directory.Exists(input) && TensorTypes.IsFloat(type) ? "model" : "model.gguf");
        try
        {
            model.Report = ModelConverter.Convert(input, model.Path, type, progress, cancellation);
            return model;
        }
        catch
        {
            model.Dispose();
            throw;
        }
    }

    /// <summary>Removes the files.</summary>
    public void Dispose()
    {
        AppDomain.CurrentDomain.ProcessExit -= Remove;
        Remove(null, EventArgs.Empty);
    }

    private void Remove(object? sender, EventArgs e)
    {
        try
        {
            Directory.Delete(_folder, recursive: true);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            // It is gone already, or the system holds it: nothing to do that the system's own cleaning would not.
        }
    }
}
