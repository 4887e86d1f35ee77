using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;
using System.Text;
using Sluice.Decoding;
using Sluice.Models;
using Sluice.Scheduling;
using Sluice.Templates;

namespace Sluice;

internal enum EngineCommand
{
    Start,
    Abort,
    Fork,
}

/// <summary>
/// Runs many requests on one model at once: every step computes what each of them lacks next, within a budget. Safe from any thread. The work is done by one thread of the
/// engine's own; what it makes is read as it comes. On reference and cpu a request's tokens are the same to the bit whatever runs beside it; on GPUs in the invariant mode.
/// </summary>
public sealed class Engine : IAsyncDisposable, IDisposable
{
    private readonly EngineLoop _loop;
    private readonly ConcurrentDictionary<string, Generation> _live = new(StringComparer.Ordinal);
    private readonly byte[] _saltKey = RandomNumberGenerator.GetBytes(32);
    private readonly EngineOptions _options;
    private readonly int _mostTokens;
    private long _names;

    internal Engine(Model model, EngineOptions options)
    {
        (Model, _options) = (model, options);
        SchedulerOptions scheduling = Scheduling(model, options);
        int pages = Pages(model, options, scheduling);
        _mostTokens = (int)Math.Min(scheduling.MaxLength, (long)pages * EngineStep.PageSize);
        ContextLength = scheduling.MaxLength;
        _loop = new EngineLoop(this, scheduling, pages, PagesFor(options.SwapTokens), options.Cascade);
        EngineMetrics.Add(this);
    }

    /// <summary>The model.</summary>
    public Model Model { get; }

    /// <summary>Tokens that a sequence may have.</summary>
    public int ContextLength { get; }

    /// <summary>What it does now, and did so far.</summary>
    public EngineStatistics Statistics => _loop.Statistics;

    /// <summary>Generates an answer to a text, encoded with the tokens that the model wants around it.</summary>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, RequestOptions, CancellationToken)"/>
    public IAsyncEnumerable<GeneratedToken> GenerateAsync(string prompt, SamplingParameters? parameters = null, RequestOptions? options = null, CancellationToken cancellationToken = default) =>
        GenerateAsync(Model.Tokenizer.Encode(prompt), parameters, options, cancellationToken);

    /// <summary>Generates an answer to a conversation, written by the model's template.</summary>
    /// <exception cref="ChatTemplateException">The template refuses the messages, or fails on them.</exception>
    /// <exception cref="InvalidOperationException">The model has no template.</exception>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, RequestOptions, CancellationToken)"/>
    public IAsyncEnumerable<GeneratedToken> GenerateAsync(ChatTemplateInput messages, SamplingParameters? parameters = null, RequestOptions? options = null, CancellationToken cancellationToken = default) =>
        GenerateAsync(Model.EncodeChat(messages), parameters, options, cancellationToken);

    /// <summary>Generates tokens after a prompt. The request begins with the enumeration; leaving that early, or cancelling, ends it, and its pages are free within a step.</summary>
    /// <param name="prompt">Token ids, one at least.</param>
    /// <param name="parameters">How to choose; null: greedy.</param>
    /// <param name="options">Name, priority, tenant.</param>
    /// <param name="cancellationToken">Ends the generation with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="ArgumentException">An empty prompt, an id that the vocabulary lacks, a parameter out of its range, or a live request has the name.</exception>
    /// <exception cref="RequestTooLargeException">Prompt and <see cref="SamplingParameters.MaxTokens"/> exceed the context or the whole cache.</exception>
    /// <exception cref="ObjectDisposedException">The engine is gone.</exception>
    /// <exception cref="Interop.SluiceException">The device failed.</exception>
    public IAsyncEnumerable<GeneratedToken> GenerateAsync(ReadOnlyMemory<int> prompt, SamplingParameters? parameters = null, RequestOptions? options = null, CancellationToken cancellationToken = default)
    {
        Check(prompt.Span, parameters ??= new SamplingParameters(), out _);
        return Run(prompt, parameters, options, cancellationToken);
    }

    /// <summary>Starts an answer now, read or not, and gives what it is read from, forked and ended by.</summary>
    /// <param name="prompt">Token ids, one at least.</param>
    /// <param name="parameters">How to choose; null: greedy.</param>
    /// <param name="options">Name, priority, tenant, whether the prompt's log-probabilities are wanted.</param>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, RequestOptions, CancellationToken)"/>
    public Generation Start(ReadOnlyMemory<int> prompt, SamplingParameters? parameters = null, RequestOptions? options = null) => Start(prompt, 1, parameters, options)[0];

    /// <summary>Starts several answers to one prompt, which is computed once. Answer i has the seed of the parameters plus i, so it is the one that a request with that seed gets.</summary>
    /// <param name="prompt">Token ids, one at least.</param>
    /// <param name="samples">How many, one at least.</param>
    /// <param name="parameters">How to choose; null: greedy.</param>
    /// <param name="options">As for one; a name gets "/1", "/2" and so on from the second answer on.</param>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, RequestOptions, CancellationToken)"/>
    public IReadOnlyList<Generation> Start(ReadOnlyMemory<int> prompt, int samples, SamplingParameters? parameters = null, RequestOptions? options = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(samples, 1);
        Check(prompt.Span, parameters ??= new SamplingParameters(), out int most);
        options ??= new RequestOptions();
        ulong seed = parameters.Seed ?? (ulong)Random.Shared.NextInt64();
        Generation[] all = new Generation[samples];
        int[] tokens = prompt.ToArray();
        try
        {
            for (int i = 0; i < samples; i++)
            {
                all[i] = Enter(tokens, tokens.Length, most, parameters, unchecked(seed + (ulong)i), options, i == 0 || options.Id is null ? options.Id : $"{options.Id}/{i}");
                if (i > 0)
                {
                    all[i].Leader = all[0];
                    all[0].Siblings.Add(all[i]);
                }
            }
        }
        catch
        {
            foreach (Generation entered in all.Where(g => g is not null))
            {
                End(entered, null);
            }

            throw;
        }

        if (most == 0)
        {
            foreach (Generation g in all)
            {
                End(g, null);
            }

            return all;
        }

        foreach (Generation g in all)
        {
            g.Activity = EngineMetrics.Begin(g);
        }

        Post(EngineCommand.Start, all[0]);
        return all;
    }

    /// <summary>The natural log-probability of each token but the first, given those before it.</summary>
    /// <param name="tokens">Two token ids at least.</param>
    /// <param name="options">Priority.</param>
    /// <param name="cancellationToken">Ends the work within a step.</param>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, RequestOptions, CancellationToken)"/>
    public Task<float[]> ScoreAsync(ReadOnlyMemory<int> tokens, RequestOptions? options = null, CancellationToken cancellationToken = default)
    {
        CheckText(tokens.Span);
        return tokens.Length == 1 ? Task.FromResult(Array.Empty<float>())
            : Read(new TextPass(tokens.ToArray(), null, normalize: false, Model.Config.HiddenSize, options ?? new RequestOptions()), cancellationToken);
    }

    /// <summary>A text as a vector [C]: the states behind its tokens, after the model's last norm, pooled. Models that were not made for it give vectors too.</summary>
    /// <param name="tokens">Token ids, one at least.</param>
    /// <param name="pooling">Of which tokens.</param>
    /// <param name="normalize">Whether the vector's length becomes 1.</param>
    /// <param name="options">Priority.</param>
    /// <param name="cancellationToken">Ends the work within a step.</param>
    /// <inheritdoc cref="GenerateAsync(ReadOnlyMemory{int}, SamplingParameters, RequestOptions, CancellationToken)"/>
    public Task<float[]> EmbedAsync(ReadOnlyMemory<int> tokens, Pooling pooling = Pooling.Mean, bool normalize = true, RequestOptions? options = null, CancellationToken cancellationToken = default)
    {
        CheckText(tokens.Span);
        return Read(new TextPass(tokens.ToArray(), pooling, normalize, Model.Config.HiddenSize, options ?? new RequestOptions()), cancellationToken);
    }

    /// <summary>Ends the live request of a name; false: there is none.</summary>
    public bool Abort(string id)
    {
        bool found = _live.TryGetValue(id, out Generation? generation);
        generation?.Abort();
        return found;
    }

    /// <summary>Takes no more requests, and ends when those that live have ended, or at once by aborting them. The device's memory is free then.</summary>
    /// <param name="drain">True: let them end.</param>
    /// <param name="cancellationToken">Ends the waiting and aborts the rest.</param>
    public async Task StopAsync(bool drain, CancellationToken cancellationToken = default)
    {
        EngineMetrics.Remove(this);
        _loop.Stop(abort: !drain);
        using (cancellationToken.UnsafeRegister(static l => ((EngineLoop)l!).Stop(abort: true), _loop))
        {
            await _loop.Stopped.ConfigureAwait(false);
        }
    }

    /// <summary>Stops it, as <see cref="EngineOptions.DrainOnDispose"/> says.</summary>
    public async ValueTask DisposeAsync() => await StopAsync(_options.DrainOnDispose).ConfigureAwait(false);

    /// <summary>Stops it, as <see cref="EngineOptions.DrainOnDispose"/> says, and waits for that.</summary>
    public void Dispose() => StopAsync(_options.DrainOnDispose).GetAwaiter().GetResult();

    internal void Post(EngineCommand command, Generation generation) => _loop.Post(command, generation);

    internal Generation Fork(Generation parent, SamplingParameters? parameters, string? id)
    {
        SamplingParameters p = parameters ?? parent.Parameters with { Seed = unchecked(parent.Chooser.Seed + (ulong)Random.Shared.NextInt64()) };
        p.Validate(Model.Config.VocabularySize);
        // How long the parent is will be known when the engine comes to it: what it may still hold then is looked at there.
        Generation fork = Enter(parent.Prompt, parent.Chooser.PromptLength, p.MaxTokens ?? _mostTokens, p, p.Seed ?? (ulong)Random.Shared.NextInt64(), parent.Options, id);
        fork.Leader = parent;
        fork.Activity = EngineMetrics.Begin(fork);
        Post(EngineCommand.Fork, fork);
        return fork;
    }

    /// <summary>Takes a request from the books: whatever became of it.</summary>
    internal void End(Generation generation, Exception? error)
    {
        _live.TryRemove(new KeyValuePair<string, Generation>(generation.Id, generation));
        EngineMetrics.End(generation, error);
        generation.Complete(error);
    }

    /// <summary>Sharing is for those of one salt.</summary>
    internal ulong SaltOf(string? tenant) =>
        tenant is null ? 0 : BitConverter.ToUInt64(HMACSHA256.HashData(_saltKey, Encoding.UTF8.GetBytes(tenant))) | 1;

    private async IAsyncEnumerable<GeneratedToken> Run(ReadOnlyMemory<int> prompt, SamplingParameters parameters, RequestOptions? options, [EnumeratorCancellation] CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        await foreach (GeneratedToken token in Start(prompt, parameters, options).WithCancellation(cancellation).ConfigureAwait(false))
        {
            yield return token;
        }
    }

    private async Task<float[]> Read(TextPass pass, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        _loop.Post(EngineCommand.Start, pass);
        using (cancellation.UnsafeRegister(static state => (((EngineLoop, TextPass))state!).Item1.Post(EngineCommand.Abort, (((EngineLoop, TextPass))state).Item2), (_loop, pass)))
        {
            return await pass.Result.ConfigureAwait(false);
        }
    }

    private Generation Enter(int[] prompt, int promptLength, int maxTokens, SamplingParameters parameters, ulong seed, RequestOptions options, string? id)
    {
        _loop.RequireRunning();
        Generation generation = new(this, id ?? $"request-{Interlocked.Increment(ref _names)}", prompt, promptLength, maxTokens, parameters, seed, options);
        while (!_live.TryAdd(generation.Id, generation))
        {
            if (id is not null)
            {
                throw new ArgumentException($"a request named '{id}' is live already, and a name is one request's until it has ended");
            }

            generation = new(this, $"request-{Interlocked.Increment(ref _names)}", prompt, promptLength, maxTokens, parameters, seed, options);
        }

        return generation;
    }

    private void Check(ReadOnlySpan<int> prompt, SamplingParameters parameters, out int maxTokens)
    {
        _loop.RequireRunning();
        parameters.Validate(Model.Config.VocabularySize);
        CheckTokens(prompt);
        Require((long)prompt.Length + (parameters.MaxTokens ?? 1));
        maxTokens = parameters.MaxTokens ?? _mostTokens - prompt.Length;
    }

    private void CheckText(ReadOnlySpan<int> tokens)
    {
        _loop.RequireRunning();
        CheckTokens(tokens);
        Require(tokens.Length);
    }

    private void CheckTokens(ReadOnlySpan<int> tokens)
    {
        if (tokens.IsEmpty)
        {
            throw new ArgumentException("the prompt has no tokens: give it one at least");
        }

        foreach (int id in tokens)
        {
            if (id < 0 || id >= Model.Config.VocabularySize)
            {
                throw new ArgumentException($"token {id} is not in the vocabulary of {Model.Config.VocabularySize:N0}");
            }
        }
    }

    private void Require(long tokens)
    {
        if (tokens > _mostTokens)
        {
            throw new RequestTooLargeException((int)Math.Min(tokens, int.MaxValue), ContextLength, PagesFor(tokens), _loop.Pages);
        }
    }

    private static int PagesFor(long tokens) => (int)Math.Min(int.MaxValue, (tokens + EngineStep.PageSize - 1) / EngineStep.PageSize);

    private static SchedulerOptions Scheduling(Model model, EngineOptions o)
    {
        SchedulerOptions preset = o.Preset == EnginePreset.Latency ? SchedulerOptions.Latency : SchedulerOptions.Throughput;
        int sequences = o.MaxSequences ?? preset.MaxSequences, budget = o.TokenBudget ?? Math.Max(preset.TokenBudget, sequences);
        Require(sequences is >= 1 and <= 4_096, nameof(o.MaxSequences), sequences, "1 to 4,096");
        Require(budget >= sequences && budget <= 65_536, nameof(o.TokenBudget), budget, $"{nameof(o.MaxSequences)} ({sequences:N0}) to 65,536");
        int chunk = o.ChunkSize ?? Math.Min(preset.ChunkSize, budget), context = o.ContextLength ?? model.ContextLength;
        Require(chunk >= 1, nameof(o.ChunkSize), chunk, "1 or more");
        Require(context >= 1 && context <= model.Config.ContextLength, nameof(o.ContextLength), context, $"1 to the model's {model.Config.ContextLength:N0}");
        Require(o.SwapTokens >= 0, nameof(o.SwapTokens), o.SwapTokens, "0 or more");
        Require(o.MaxPassedOver >= 0, nameof(o.MaxPassedOver), o.MaxPassedOver, "0 or more");
        RopeConfig[] ropes = [.. model.Config.Ropes.Where(r => r.DependsOnLength)];
        foreach (RopeConfig dynamic in ropes.Where(r => r.Scaling == RopeScaling.Dynamic && r.OriginalContext > 0))
        {
            // Beyond that each sequence would want frequencies of its own at every step, and keys that nobody can share.
            context = Math.Min(context, dynamic.OriginalContext);
        }

        ropes = [.. ropes.Where(r => r.Scaling == RopeScaling.LongRope)];
        return preset with
        {
            TokenBudget = budget,
            MaxSequences = sequences,
            ChunkSize = Math.Min(chunk, budget),
            MaxRows = Math.Max(sequences, Math.Min(64, budget)),
            MaxLength = context,
            Policy = o.Policy,
            MaxPassedOver = o.MaxPassedOver,
            PrefixCaching = o.PrefixCaching,
            LengthClass = ropes.Length == 0 ? null : length => ropes.Count(r => length > r.OriginalContext),
        };
    }

    private static int Pages(Model model, EngineOptions o, SchedulerOptions scheduling)
    {
        if (o.CacheTokens is { } asked)
        {
            Require(asked >= 1, nameof(o.CacheTokens), asked, "1 or more");
            return PagesFor(asked);
        }

        ModelConfig c = model.Config;
        long bytes = c.LayerCount * (long)c.KvHeadCount * (((c.HeadDim + c.ValueHeadDim) * (model.KvType switch { Interop.DType.F32 => 4L, Interop.DType.F16 or Interop.DType.BF16 => 2, _ => 1 })) + 8) * EngineStep.PageSize;
        long wanted = scheduling.MaxSequences * (long)PagesFor(scheduling.MaxLength), fitting = (long)(model.DeviceInfo.MemoryFree / (model.DeviceInfo.Backend == Interop.Backend.Cuda ? 2UL : 4)) / bytes;
        return (int)Math.Min(int.MaxValue / EngineStep.PageSize, Math.Max(Math.Min(wanted, fitting), PagesFor(scheduling.MaxLength)));
    }

    private static void Require(bool holds, string name, int value, string expected)
    {
        if (!holds)
        {
            throw new ArgumentException($"{name} is {value:N0}, and may be: {expected}");
        }
    }
}
