using System.Text;
using BenchmarkDotNet.Attributes;
using Sluice.Models;
using Sluice.Tokenization;

namespace Sluice.Perf;

/// <summary>
/// One million bytes of text to tokens on one core, so that 1 ms is 1,000 MB/s and 100 ms are 10: English prose (SLUICE_BENCH_TEXT names a UTF-8 file, else this
/// repository's own documents, repeated), and the worst case of one letter. Vocabularies: all of SLUICE_SHARED/tokenizers.
/// </summary>
[MemoryDiagnoser]
public class TokenizerBenchmarks
{
    private const int Bytes = 1_000_000;

    private readonly List<int> _ids = new(Bytes);
    private byte[] _english = [], _letter = [];
    private Tokenizer _tokenizer = null!;

    /// <summary>The vocabularies that are here.</summary>
    public static IEnumerable<string> Vocabularies => Directory.Exists(Folder)
        ? Directory.EnumerateFiles(Folder, "*.gguf").Concat(Directory.EnumerateDirectories(Folder)).Select(p => Path.GetFileName(p)).Order(StringComparer.Ordinal) : [];

    /// <summary>A file or folder there.</summary>
    [ParamsSource(nameof(Vocabularies))]
    public string Vocabulary { get; set; } = "";

    private static string Folder => Path.Combine(Environment.GetEnvironmentVariable("SLUICE_SHARED") ?? Path.Combine("..", "shared"), "tokenizers");

    [GlobalSetup]
    public void Setup()
    {
        _tokenizer = ModelSource.OpenTokenizer(Path.Combine(Folder, Vocabulary));
        string text = Environment.GetEnvironmentVariable("SLUICE_BENCH_TEXT") is { Length: > 0 } file ? File.ReadAllText(file)
            : string.Concat(Directory.EnumerateFiles(".", "*.md").Order(StringComparer.Ordinal).Select(File.ReadAllText));
        _english = Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat(text, (Bytes / text.Length) + 1))).AsSpan(0, Bytes).ToArray();
        _letter = new byte[Bytes];
        _letter.AsSpan().Fill((byte)'a');
    }

    [Benchmark(Description = "English, 1 MB")]
    public int English() => Encode(_english);

    [Benchmark(Description = "one letter, 1 MB")]
    public int Letter() => Encode(_letter);

    private int Encode(byte[] text)
    {
        _ids.Clear();
        _tokenizer.Encode(text, _ids);
        return _ids.Count;
    }
}
