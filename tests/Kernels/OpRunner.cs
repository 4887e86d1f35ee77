using System.Runtime.InteropServices;
using Sluice.Interop;

namespace Sluice.Kernels;

/// <summary>A case on one device: everything is uploaded once, then the op can run any number of times.</summary>
public sealed class OpRunner : IDisposable
{
    private readonly OpCase _case;
    private readonly Dictionary<string, Tensor> _tensors = [];
    private readonly Dictionary<string, Weight> _weights = [];
    private readonly bool _ownsWeights;
    private readonly KvCache? _cache;
    private readonly Batch? _batch;
    private readonly DeviceBuffer? _host; // of cases with saved pages: these, at the case's offset

    /// <param name="device">Where it runs.</param>
    /// <param name="opCase">The case.</param>
    /// <param name="weights">The case's weights, where the device has them already: they stay the caller's. Else they are made here.</param>
    public OpRunner(Device device, OpCase opCase, IReadOnlyDictionary<string, Weight>? weights = null)
    {
        _case = opCase;
        _ownsWeights = weights is null;
        Stream = device.CreateStream();
        foreach ((string name, HostTensor t) in opCase.Inputs)
        {
            _tensors[name] = Stream.CreateTensor<byte>(t.DType, t.Data, t.Shape);
        }

        foreach ((string name, (DType dtype, long[] shape)) in opCase.Outputs)
        {
            if (!_tensors.ContainsKey(name))
            {
                _tensors[name] = Stream.CreateTensor(dtype, shape);
                Stream.Fill(_tensors[name].Buffer!, 0, 0xff, (ulong)Math.Max(_tensors[name].Count * dtype.Size(), 1));
            }
        }

        foreach ((string name, HostWeight w) in opCase.Weights)
        {
            _weights[name] = weights?[name] ?? Create(Stream, w);
        }

        if (opCase.Cache is not null)
        {
            (_cache, _batch) = CreateCache(opCase.Cache, opCase.Step!);
        }

        if (this["saved"] is { IsAbsent: false } saved)
        {
            ulong bytes = (ulong)(saved.Count * saved.DType.Size());
            _host = Stream.CreateBuffer(HostOffset + bytes, MemoryKind.Host);
            Stream.Copy(saved.Buffer!, 0, _host, HostOffset, bytes);
        }

        Stream.Reserve(Stream.Measure(Run));
    }

    public ComputeStream Stream { get; }

    /// <summary>Puts a weight on a device.</summary>
    public static Weight Create(ComputeStream stream, HostWeight w) => Weight.Create(stream, new WeightSource
    {
        Encoding = w.Encoding, Rows = w.Rows, Cols = w.Cols, Group = w.Group, Data = w.Data, Scales = w.Scales, Zeros = w.Zeros, Order = w.Order,
    });

    public Tensor this[string name] => _tensors.GetValueOrDefault(name);

    /// <summary>Bytes that the device's form of a weight takes.</summary>
    public long WeightBytes(string name) => (long)_weights[name].Bytes;

    /// <summary>What a case's batch is made for: some more than the step has, as batches are.</summary>
    public static BatchOptions Capacity(OpCase c)
    {
        HostStep step = c.Step!;
        return new BatchOptions(Math.Max(1, step.Tokens + c.PaddingRows), Math.Max(1, step.Sequences + 2), Math.Max(1, step.PageIds.Length + 3), step.Mask.Length, step.Prefixes.Length) { Sharing = Sharing.Always };
    }

    /// <summary>Puts another tensor in the place of one, to see it refused.</summary>
    public void Replace(string name, Tensor tensor) => _tensors[name] = tensor;

    /// <summary>Puts the op on the stream once.</summary>
    public void Run()
    {
        OpCase c = _case;
        switch (c.Op)
        {
            case "embedding":
                Stream.Embedding(this["ids"], _weights["table"], c.Scalar("scale"), this["y"]);
                break;
            case "gather":
                Stream.Gather(this["x"], this["rows"], this["y"]);
                break;
            case "rms_norm":
                Stream.RmsNorm(this["x"], this["w"], c.Scalar("eps"), this["y"]);
                break;
            case "add_rms_norm":
                Stream.AddRmsNorm(this["x"], this["residual"], this["w"], c.Scalar("eps"), this["y"]);
                break;
            case "rms_norm_add":
                Stream.RmsNormAdd(this["x"], this["w"], c.Scalar("eps"), this["residual"], this["y"]);
                break;
            case "linear":
                Stream.Linear(this["x"], _weights["w"], this["y"], this["bias"], this["residual"], c.Scalar("scale"), c.Scalar("soft_cap"), this["squares"], (Route)(int)c.Scalar("route"));
                break;
            case "rope":
                Stream.Rope(this["x"], this["positions"], this["inv_freq"], (RopeKind)(int)c.Scalar("kind"), c.Scalar("scale"), this["y"]);
                break;
            case "kv_append":
                Stream.KvAppend(_cache!, 0, _batch!, this["k"], this["v"]);
                break;
            case "fused_qkv":
                Stream.FusedQkv(new FusedQkvArgs
                {
                    X = this["x"], NormWeight = this["norm_weight"], Wq = _weights["wq"], Wk = _weights["wk"], Wv = _weights["wv"],
                    BiasQ = this["bias_q"], BiasK = this["bias_k"], BiasV = this["bias_v"], NormQ = this["norm_q"], NormK = this["norm_k"],
                    InvFreq = this["inv_freq"], Cache = _cache!, Batch = _batch!, Q = this["q"],
                    NormEps = 1e-5f, QkNormEps = 1e-6f, RopeScale = c.Scalar("rope_scale"), RopeKind = (RopeKind)(int)c.Scalar("kind"), Squares = this["squares"],
                });
                break;
            case "gated_linear":
                Stream.GatedLinear(new GatedLinearArgs
                {
                    X = this["x"], NormWeight = this["norm_weight"], Gate = _weights["gate"], Up = _weights["up"], BiasGate = this["bias_gate"], BiasUp = this["bias_up"],
                    Y = this["y"], NormEps = 1e-5f, Activation = (Activation)(int)c.Scalar("activation"), Squares = this["squares"],
                });
                break;
            case "copy_pages":
                _cache!.CopyPages(Stream, MemoryMarshal.Cast<byte, int>(c.Inputs["sources"].Data), MemoryMarshal.Cast<byte, int>(c.Inputs["targets"].Data));
                break;
            case "save_pages":
                _cache!.SavePages(Stream, MemoryMarshal.Cast<byte, int>(c.Inputs["pages"].Data), _host!, HostOffset);
                break;
            case "load_pages":
                _cache!.LoadPages(Stream, MemoryMarshal.Cast<byte, int>(c.Inputs["pages"].Data), _host!, HostOffset);
                break;
            case "paged_attention":
                Stream.PagedAttention(Attention());
                break;
            case "cascade_attention":
                Stream.CascadeAttention(Attention());
                break;
            case "merge_states":
                Stream.MergeStates(this["o"], this["lse2"], this["y"], this["y_lse2"]);
                break;
            case "gated_activation":
                Stream.GatedActivation((Activation)(int)c.Scalar("activation"), this["gate"], this["up"], this["y"]);
                break;
            case "penalties":
                Stream.Penalties(new PenaltiesArgs
                {
                    Logits = this["logits"], History = this["history"], HistoryIndptr = this["history_indptr"], Repetition = this["repetition"],
                    Presence = this["presence"], Frequency = this["frequency"], BiasIds = this["bias_ids"], BiasValues = this["bias_values"], BiasIndptr = this["bias_indptr"],
                });
                break;
            case "argmax":
                Stream.ArgMax(this["logits"], this["ids"]);
                break;
            case "sample":
                Stream.Sample(new SampleArgs
                {
                    Logits = this["logits"], Temperature = this["temperature"], TopK = this["top_k"], TopP = this["top_p"], MinP = this["min_p"],
                    Seed = this["seed"], Position = this["position"], Ids = this["ids"],
                });
                break;
            case "log_probs":
                Stream.LogProbs(this["logits"], this["ids"], this["log_probs"], this["top_ids"], this["top_log_probs"]);
                break;
            default:
                throw new InvalidOperationException($"no op is called {c.Op}");
        }
    }

    /// <summary>Every output, after the stream is done.</summary>
    public Dictionary<string, HostTensor> Read()
    {
        if (_cache is not null)
        {
            ReadCache();
        }

        if (_case.Outputs.ContainsKey("saved"))
        {
            Stream.Copy(_host!, HostOffset, this["saved"].Buffer!, 0, (ulong)(this["saved"].Count * this["saved"].DType.Size()));
        }

        Dictionary<string, HostTensor> outputs = [];
        foreach ((string name, (DType dtype, long[] shape)) in _case.Outputs)
        {
            byte[] data = new byte[_tensors[name].Count * dtype.Size()];
            if (data.Length > 0)
            {
                Stream.Download(_tensors[name], data.AsSpan());
            }

            outputs[name] = new HostTensor(dtype, shape, data);
        }

        return outputs;
    }

    public void Dispose()
    {
        foreach (Tensor t in _tensors.Values)
        {
            t.Buffer?.Dispose();
        }

        foreach (Weight w in _ownsWeights ? _weights.Values : Enumerable.Empty<Weight>())
        {
            w.Dispose();
        }

        _host?.Dispose();
        _batch?.Dispose();
        _cache?.Dispose();
        Stream.Dispose();
    }

    private ulong HostOffset => (ulong)_case.Scalar("offset");

    private AttentionArgs Attention() => new()
    {
        Cache = _cache!, Batch = _batch!, Q = this["q"], O = this["o"], Lse2 = this["lse2_out"], Sinks = this["sinks"], AlibiSlopes = this["alibi_slopes"],
        Scale = _case.Scalar("scale"), SoftCap = _case.Scalar("soft_cap"), Window = (int)_case.Scalar("window"), Causal = _case.Scalar("causal") != 0,
    };

    // The pool's rows that the step wrote, as [rows, Hkv * D]: a row of the pool is one slot of one head.
    private void ReadCache()
    {
        (Tensor keys, Tensor values) = _cache!.Layer(0);
        foreach ((Tensor pool, string name) in new[] { (keys, "cache_k"), (values, "cache_v") })
        {
            Tensor rows = new(null, pool.Pointer, pool.Offset, pool.DType, [pool.Shape(0) * pool.Shape(1) * pool.Shape(2), pool.Shape(3)]);
            if (!this[name].IsAbsent)
            {
                Stream.Gather(rows, this["cache_rows"], this[name]);
            }
        }
    }

    // Every slot gets NaN, then each sequence its history: through the ABI alone, so it works wherever the pool lies.
    private (KvCache Cache, Batch Batch) CreateCache(KvCacheOptions options, HostStep step)
    {
        KvCache cache = new(Stream, options);
        if (_case.HistoryK is null)
        {
            FillCache(cache);
        }
        else
        {
            int slots = options.Pages * options.PageSize;
            using Batch all = new(Stream, cache, new BatchOptions(slots, 1, options.Pages));
            all.Update(Stream, new BatchStep { QueryIndptr = [0, slots], KvLengths = [slots], PageIndptr = [0, options.Pages], PageIds = Enumerable.Range(0, options.Pages).ToArray() });
            float[] nan = new float[slots * options.KvHeads * Math.Max(options.KeyDim, options.ValueDim)];
            Array.Fill(nan, float.NaN);
            Tensor k = Stream.CreateTensor<float>(DType.F32, nan.AsSpan(0, slots * options.KvHeads * options.KeyDim), slots, options.KvHeads, options.KeyDim);
            Tensor v = Stream.CreateTensor<float>(DType.F32, nan.AsSpan(0, slots * options.KvHeads * options.ValueDim), slots, options.KvHeads, options.ValueDim);
            Append(cache, all, k, v);
        }

        // One sequence a step: those that share a prefix write the same pages.
        for (int b = 0, first = 0; b < _case.History.Length; first += _case.History[b++])
        {
            int count = _case.History[b], keyBytes = options.KvHeads * options.KeyDim * sizeof(float), valueBytes = options.KvHeads * options.ValueDim * sizeof(float);
            if (count > 0)
            {
                int[] pages = step.PageIds[step.PageIndptr[b]..step.PageIndptr[b + 1]];
                using Batch past = new(Stream, cache, new BatchOptions(count, 1, pages.Length));
                past.Update(Stream, new BatchStep { QueryIndptr = [0, count], KvLengths = [count], PageIndptr = [0, pages.Length], PageIds = pages });
                Append(
                    cache, past,
                    Stream.CreateTensor<byte>(DType.F32, _case.HistoryK!.Data.AsSpan(first * keyBytes, count * keyBytes), count, options.KvHeads, options.KeyDim),
                    Stream.CreateTensor<byte>(DType.F32, _case.HistoryV!.Data.AsSpan(first * valueBytes, count * valueBytes), count, options.KvHeads, options.ValueDim));
            }
        }

        Batch batch = new(Stream, cache, Capacity(_case));
        batch.Update(Stream, new BatchStep
        {
            QueryIndptr = step.QueryIndptr, KvLengths = step.KvLengths, PageIndptr = step.PageIndptr, PageIds = step.PageIds,
            Positions = step.Positions, Mask = step.Mask, MaskIndptr = step.MaskIndptr, Prefixes = step.Prefixes,
        });
        return (cache, batch);
    }

    // Gigabytes from a few megabytes of the host: the same tokens are appended to one run of pages after the other.
    private void FillCache(KvCache cache)
    {
        KvCacheOptions o = cache.Options;
        int pages = Math.Clamp((1 << 22) / (o.PageSize * o.KvHeads * Math.Max(o.KeyDim, o.ValueDim)), 1, o.Pages), slots = pages * o.PageSize;
        HostTensor keys = CaseData.Repeated(DType.F32, slots, o.KvHeads, o.KeyDim), values = CaseData.Repeated(DType.F32, slots, o.KvHeads, o.ValueDim);
        Tensor k = Stream.CreateTensor<byte>(DType.F32, keys.Data, keys.Shape), v = Stream.CreateTensor<byte>(DType.F32, values.Data, values.Shape);
        using DeviceBuffer keyBuffer = k.Buffer!, valueBuffer = v.Buffer!;
        using Batch batch = new(Stream, cache, new BatchOptions(slots, 1, pages));
        for (int first = 0; first < o.Pages; first += pages)
        {
            int count = Math.Min(pages, o.Pages - first);
            batch.Update(Stream, new BatchStep { QueryIndptr = [0, count * o.PageSize], KvLengths = [count * o.PageSize], PageIndptr = [0, count], PageIds = Enumerable.Range(first, count).ToArray() });
            if (first == 0)
            {
                Stream.Reserve(Stream.Measure(() => Stream.KvAppend(cache, 0, batch, k, v)));
            }

            Stream.KvAppend(cache, 0, batch, k, v);
        }
    }

    private void Append(KvCache cache, Batch batch, Tensor k, Tensor v)
    {
        Stream.Reserve(Stream.Measure(() => Stream.KvAppend(cache, 0, batch, k, v)));
        Stream.KvAppend(cache, 0, batch, k, v);
        k.Buffer!.Dispose();
        v.Buffer!.Dispose();
    }
}
