using System.CommandLine;
using System.CommandLine.Parsing;
using Sluice.Interop;
using Sluice.Models;
using Spectre.Console;

namespace Sluice.Console;

/// <summary>The model's path and where it runs: the same in every verb that loads one.</summary>
internal sealed class ModelArguments
{
    private static readonly Dictionary<string, Isa> Isas = new()
    {
        ["best"] = Isa.Best, ["portable"] = Isa.Portable, ["neon"] = Isa.Neon, ["avx2"] = Isa.AVX2, ["avx_vnni"] = Isa.AvxVnni,
        ["avx512"] = Isa.AVX512, ["avx512_vnni"] = Isa.AVX512Vnni, ["avx512_bf16"] = Isa.AVX512BF16,
    };
    private static readonly Dictionary<string, DType?> ActivationTypes = new() { ["auto"] = null, ["f32"] = DType.F32, ["f16"] = DType.F16, ["bf16"] = DType.BF16 };
    private static readonly Dictionary<string, DType?> KvTypes = new(ActivationTypes) { ["fp8"] = DType.FP8E4M3, ["int8"] = DType.I8 };

    /// <summary>What a model may be, in words.</summary>
    public const string ModelText = "A GGUF file, a Hugging Face folder, or hf:OWNER/NAME[@REVISION][:FILE]";

    private readonly Argument<string> _model = new("MODEL") { Description = ModelText };
    private readonly Option<string> _device = Choice("--device", "Where to run: auto takes a GPU if there is one, else the CPU", "auto", ["auto", "cpu", "cuda", "simt", "reference"]);
    private readonly Option<int> _threads = new("--threads") { Description = "CPU threads; 0: one a physical core", DefaultValueFactory = _ => 0 };
    private readonly Option<string> _isa = Choice("--isa", "CPU instruction set; best: what the environment variable SLUICE_ISA names, else the best that is here", "best", [.. Isas.Keys]);
    private readonly Option<int?> _context = new("--context") { Description = "Tokens of prompt and answer together [default: the model's, 8192 at most]" };
    private readonly Option<string> _kv = Choice("--kv", "Element type of the KV cache", "auto", [.. KvTypes.Keys]);
    private readonly Option<bool> _invariant = new("--invariant") { Description = "On GPUs: the same logits to the bit in any batch or chunk, as they always are elsewhere; slower" };
    private readonly Option<bool> _int8 = new("--int8-activations") { Description = "On GPUs: round activations to int8 where few of them meet GGUF's block types" };
    private readonly Option<string> _activations = Choice("--activations", "Element type of activations", "auto", [.. ActivationTypes.Keys]);
    private readonly Option<int> _chunk = new("--chunk") { Description = "Prompt tokens computed in one step", DefaultValueFactory = _ => 512 };
    private readonly Option<bool> _noMap = new("--no-mmap") { Description = "Read the file instead of mapping it: for files that may change underneath" };

    private readonly Option<bool> _cache = new("--cache-packed") { Description = "cpu: keep the packed weights in a file beside the model, and start from it the next time" };
    private readonly Option<bool> _verify = new("--verify-packed") { Description = "With --cache-packed: compare all of that file with its checksums first" };

    public void AddTo(Command command)
    {
        command.Arguments.Add(_model);
        foreach (Option option in new Option[] { _device, _threads, _isa, _context, _activations, _int8, _invariant, _kv, _chunk, _noMap, _cache, _verify })
        {
            command.Options.Add(option);
        }

        command.Validators.Add(r =>
        {
            if (r.Has(_verify) && !r.Has(_cache))
            {
                r.AddError("--verify-packed is about --cache-packed: give both");
            }
        });
    }

    /// <summary>The path of a model; one on a hub is downloaded first, with a progress bar on standard error.</summary>
    public static async Task<string> ResolveAsync(string model, CancellationToken cancellation) =>
        model.StartsWith(PullCommand.Prefix, StringComparison.Ordinal) ? await PullCommand.PullAsync(model[PullCommand.Prefix.Length..], cancellation) : model;

    public Task<string> PathAsync(ParseResult parsed, CancellationToken cancellation) => ResolveAsync(parsed.GetValue(_model)!, cancellation);

    public string Name(ParseResult parsed) => System.IO.Path.GetFileName(System.IO.Path.TrimEndingDirectorySeparator(parsed.GetValue(_model)!));

    public bool MemoryMap(ParseResult parsed) => !parsed.GetValue(_noMap);

    public ModelOptions Options(ParseResult parsed) => new()
    {
        Device = parsed.GetValue(_device) switch
        {
            "cpu" => Backend.Cpu,
            "cuda" => Backend.Cuda,
            "simt" => Backend.Simt,
            "reference" => Backend.Reference,
            _ => null,
        },
        Threads = parsed.GetValue(_threads),
        Isa = Isas[parsed.GetValue(_isa)!],
        ContextLength = parsed.GetValue(_context),
        ActivationType = ActivationTypes[parsed.GetValue(_activations)!],
        Int8Activations = parsed.GetValue(_int8),
        Invariant = parsed.GetValue(_invariant),
        KvType = KvTypes[parsed.GetValue(_kv)!],
        ChunkSize = parsed.GetValue(_chunk),
        MemoryMap = MemoryMap(parsed),
        CachePacked = parsed.GetValue(_cache),
        VerifyPacked = parsed.GetValue(_verify),
    };

    /// <summary>Loads the model with a progress bar on standard error, and names the device there.</summary>
    public async Task<Model> LoadAsync(ParseResult parsed, CancellationToken cancellation) => await LoadAsync(await PathAsync(parsed, cancellation), Options(parsed), cancellation);

    /// <summary>Loads any model so.</summary>
    public static async Task<Model> LoadAsync(string path, ModelOptions options, CancellationToken cancellation)
    {
        Model model = await Terminal.WithProgressAsync<Model, LoadProgress>(
            "loading", p => (p.Bytes, p.TotalBytes), progress => Model.LoadAsync(path, options, progress, cancellation));
        Terminal.Note($"{Describe(model.DeviceInfo)}; activations {DTypeName(model.ActivationType)}{(options.Int8Activations ? " (int8 in products of few rows)" : "")}{(options.Invariant ? ", invariant" : "")}, KV cache {DTypeName(model.KvType)}{(model.DeviceInfo.Backend != Backend.Cuda ? "" : model.IsTuned ? ", tuned" : ", not tuned ('sluice tune' measures this GPU once)")}");
        if (model.PackedCopy is { } copy)
        {
            Terminal.Note($"packed copy: {copy.Use switch { PackedCopyUse.Read => $"read from {copy.Path}", PackedCopyUse.Written => $"written to {copy.Path}", _ => "none" }}{(copy.Note.Length == 0 ? "" : $" ({copy.Note})")}");
        }

        return model;
    }

    public static string Describe(DeviceInfo d) => d.Backend switch
    {
        Backend.Cpu => $"device: cpu ({d.Name}, {d.Threads} thread{(d.Threads == 1 ? "" : "s")}, {IsaName(d.Isa)})",
        Backend.Cuda => $"device: cuda ({d.Name}, sm_{d.ComputeCapability}, {d.MemoryFree / 1e9:0.0} of {d.MemoryTotal / 1e9:0.0} GB free)",
        Backend.Simt => $"device: simt (the cuda kernels, executed and checked on the CPU: slow)",
        _ => "device: reference (plain loops, sums in double: slow)",
    };

    public static string DTypeName(DType type) => KvTypes.First(t => t.Value == type).Key;

    public static string IsaName(Isa isa) => Isas.First(i => i.Value == isa).Key;

    /// <summary>An option that takes one of a few words.</summary>
    public static Option<string> Choice(string name, string description, string initial, string[] words)
    {
        Option<string> option = new(name) { Description = description, DefaultValueFactory = _ => initial };
        option.AcceptOnlyFromAmong(words);
        return option;
    }
}

/// <summary>What goes to a person: notes and progress on standard error, so that standard output holds results alone.</summary>
internal static partial class Terminal
{
    private static readonly IAnsiConsole Error = AnsiConsole.Create(new AnsiConsoleSettings { Out = new AnsiConsoleOutput(System.Console.Error) });

    private static readonly TimeSpan BarAfter = TimeSpan.FromMilliseconds(500);

    public static void Note(string text) => System.Console.Error.WriteLine(text);

    /// <summary>Runs work that reports how far it is; shows a bar where standard error is a terminal and the work takes more than half a second.</summary>
    public static async Task<TResult> WithProgressAsync<TResult, TReport>(string title, Func<TReport, (long Done, long Total)> read, Func<IProgress<TReport>?, Task<TResult>> work)
    {
        if (System.Console.IsErrorRedirected)
        {
            return await work(null);
        }

        Report<TReport> report = new(read);
        Task<TResult> running = work(report);
        if (await Task.WhenAny(running, Task.Delay(BarAfter)) == running)
        {
            return await running;
        }

        return await Error.Progress().AutoClear(true).Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new RemainingTimeColumn()).StartAsync(async context =>
        {
            report.ShowOn(context.AddTask(title));
            return await running;
        });
    }

    // Progress<T> posts to a context and may come late; a bar takes its value at once.
    private sealed class Report<T>(Func<T, (long Done, long Total)> read) : IProgress<T>
    {
        private readonly Lock _lock = new();
        private (long Done, long Total) _last = (0, 1);
        private ProgressTask? _bar;

        public void ShowOn(ProgressTask bar)
        {
            lock (_lock)
            {
                _bar = bar;
                Show();
            }
        }

        void IProgress<T>.Report(T value)
        {
            lock (_lock)
            {
                _last = read(value);
                Show();
            }
        }

        private void Show()
        {
            if (_bar is not null)
            {
                (_bar.MaxValue, _bar.Value) = (Math.Max(_last.Total, 1), _last.Done);
            }
        }
    }
}
