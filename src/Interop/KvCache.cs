namespace Sluice.Interop;

/// <summary>The extents of a KV cache.</summary>
/// <param name="DType">f32, f16 or bf16 (fp8 and int8 where the backend has them).</param>
/// <param name="Layers">Layers of the model.</param>
/// <param name="Pages">Pages in each layer's pool.</param>
/// <param name="KvHeads">Hkv.</param>
/// <param name="KeyDim">D.</param>
/// <param name="ValueDim">Dv.</param>
/// <param name="PageSize">P: tokens a page; a divisor of 256.</param>
public sealed record KvCacheOptions(DType DType, int Layers, int Pages, int KvHeads, int KeyDim, int ValueDim, int PageSize = 16);

/// <summary>Pools of KV pages for all layers of a model.</summary>
public sealed unsafe class KvCache : NativeHandle
{
    /// <summary>Allocates the pools.</summary>
    /// <exception cref="SluiceException">A bad extent, or no memory.</exception>
    public KvCache(ComputeStream stream, KvCacheOptions options)
    {
        using Lease lease = default;
        Options = options;
        sl_kv_cache_options native = default;
        native.size = (uint)sizeof(sl_kv_cache_options);
        native.dtype = options.DType;
        native.layers = options.Layers;
        native.pages = options.Pages;
        native.kv_heads = options.KvHeads;
        native.key_dim = options.KeyDim;
        native.value_dim = options.ValueDim;
        native.page_size = options.PageSize;
        sl_kv_cache* cache;
        SluiceException.ThrowIfFailed(NativeMethods.sl_kv_cache_create((sl_stream*)lease.Hold(stream), &native, &cache));
        Adopt(cache);
        ulong bytes;
        SluiceException.ThrowIfFailed(NativeMethods.sl_kv_cache_get_page_bytes(cache, &bytes));
        PageBytes = bytes;
    }

    /// <summary>What it was made with.</summary>
    public KvCacheOptions Options { get; }

    /// <summary>Bytes of a page in host memory, all layers together; a multiple of 16.</summary>
    public ulong PageBytes { get; }

    /// <summary>Copies whole pages in all layers: page targets[i] = page sources[i].</summary>
    /// <exception cref="ArgumentException">The counts differ.</exception>
    /// <exception cref="SluiceException">A page out of range, or written twice, or both source and target.</exception>
    public void CopyPages(ComputeStream stream, ReadOnlySpan<int> sources, ReadOnlySpan<int> targets)
    {
        if (sources.Length != targets.Length)
        {
            throw new ArgumentException($"{sources.Length} sources, {targets.Length} targets", nameof(targets));
        }

        using Lease lease = default;
        fixed (int* s = sources, t = targets)
        {
            SluiceException.ThrowIfFailed(NativeMethods.sl_kv_cache_copy_pages((sl_stream*)lease.Hold(stream), (sl_kv_cache*)lease.Hold(this), s, t, sources.Length));
        }
    }

    /// <summary>
    /// Saves whole pages, in all layers: pages[i] goes to byte <paramref name="offset"/> + i * <see cref="PageBytes"/> of host memory, laid out as sluice.h tells. Ordered
    /// on the stream: what follows there may reuse the pages, and the bytes are there when the stream has come so far.
    /// </summary>
    /// <param name="stream">Of the cache's device; not while it is captured.</param>
    /// <param name="pages">Page ids, read at the call; one may stand there more than once.</param>
    /// <param name="buffer">Host memory (<see cref="MemoryKind.Host"/>) of the same device.</param>
    /// <param name="offset">Bytes, a multiple of 16.</param>
    /// <exception cref="SluiceException">A page out of range, a buffer of device memory or too small for the pages, or an odd offset.</exception>
    public void SavePages(ComputeStream stream, ReadOnlySpan<int> pages, DeviceBuffer buffer, ulong offset)
    {
        using Lease lease = default;
        fixed (int* p = pages)
        {
            SluiceException.ThrowIfFailed(NativeMethods.sl_kv_cache_save_pages(
                (sl_stream*)lease.Hold(stream), (sl_kv_cache*)lease.Hold(this), p, pages.Length, (sl_buffer*)lease.Hold(buffer), offset));
        }
    }

    /// <summary>Loads whole pages, in all layers: pages[i] becomes what lies at byte <paramref name="offset"/> + i * <see cref="PageBytes"/> of host memory. Ordered on the stream.</summary>
    /// <param name="stream">Of the cache's device; not while it is captured.</param>
    /// <param name="pages">Page ids, read at the call; each once.</param>
    /// <param name="buffer">Host memory, where <see cref="SavePages"/> put pages of this cache or of one like it.</param>
    /// <param name="offset">Bytes, a multiple of 16.</param>
    /// <exception cref="SluiceException">A page out of range or written twice, a buffer of device memory or too small for the pages, or an odd offset.</exception>
    public void LoadPages(ComputeStream stream, ReadOnlySpan<int> pages, DeviceBuffer buffer, ulong offset)
    {
        using Lease lease = default;
        fixed (int* p = pages)
        {
            SluiceException.ThrowIfFailed(NativeMethods.sl_kv_cache_load_pages(
                (sl_stream*)lease.Hold(stream), (sl_kv_cache*)lease.Hold(this), p, pages.Length, (sl_buffer*)lease.Hold(buffer), offset));
        }
    }

    /// <summary>The pools of a layer, [pages, Hkv, P, D] and [pages, Hkv, P, Dv]; valid while the cache lives. For ops and tests.</summary>
    public (Tensor Keys, Tensor Values) Layer(int layer)
    {
        using Lease lease = default;
        sl_tensor keys, values;
        SluiceException.ThrowIfFailed(NativeMethods.sl_kv_cache_get_layer((sl_kv_cache*)lease.Hold(this), layer, &keys, &values));
        return (Import(keys), Import(values));

        static Tensor Import(sl_tensor t) =>
            new(null, (nint)t.pointer, t.offset, t.dtype, new ReadOnlySpan<long>(t.shape, t.rank), new ReadOnlySpan<long>(t.stride, t.rank));
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_kv_cache_release((sl_kv_cache*)handle);
        return true;
    }
}

/// <summary>The largest step that a batch can hold.</summary>
/// <param name="MaxTokens">T.</param>
/// <param name="MaxSequences">B.</param>
/// <param name="MaxPageIds">Page ids of all sequences together.</param>
/// <param name="MaxMaskBytes">0: no custom masks.</param>
/// <param name="MaxPrefixes">0: no shared prefixes.</param>
public sealed record BatchOptions(int MaxTokens, int MaxSequences, int MaxPageIds, int MaxMaskBytes = 0, int MaxPrefixes = 0)
{
    /// <summary>H of the attention that will read the plan; 0: Hkv. What sharing costs depends on it, no result does.</summary>
    public int QueryHeads { get; init; }

    /// <summary>Query rows of all shared prefixes, each counted at every level that it has; 0: four times <see cref="MaxTokens"/>.</summary>
    public int MaxPrefixRows { get; init; }

    /// <summary>Which prefixes cascade attention reads once for all of their sequences: those that are faster so, or all.</summary>
    public Sharing Sharing { get; init; }
}

/// <summary>What a plan does about the prefixes of its step.</summary>
/// <param name="Tokens">Query rows.</param>
/// <param name="Sequences">Sequences.</param>
/// <param name="SharedPrefixes">Prefixes that are read once for all of their sequences.</param>
/// <param name="PrefixRows">Query rows of these, counted at every level.</param>
/// <param name="Keys">Keys of all sequences: what paged attention reads.</param>
/// <param name="KeysShared">What cascade attention reads: those of a shared prefix once.</param>
public readonly record struct BatchInfo(int Tokens, int Sequences, int SharedPrefixes, int PrefixRows, long Keys, long KeysShared);

/// <summary>Keys [FirstKey, FirstKey + NumKeys) are the very same pages in these neighbouring sequences; both are multiples of 256.</summary>
public readonly record struct SharedPrefix(int FirstSequence, int NumSequences, int FirstKey, int NumKeys);

/// <summary>A step: see sl_batch_step for each array's shape.</summary>
public ref struct BatchStep
{
    /// <summary>[B+1]: the rows of each sequence.</summary>
    public ReadOnlySpan<int> QueryIndptr { get; set; }

    /// <summary>[B]: keys of each sequence after this step's append.</summary>
    public ReadOnlySpan<int> KvLengths { get; set; }

    /// <summary>[B+1]: into <see cref="PageIds"/>.</summary>
    public ReadOnlySpan<int> PageIndptr { get; set; }

    /// <summary>The pages of each sequence.</summary>
    public ReadOnlySpan<int> PageIds { get; set; }

    /// <summary>[T], or empty: the KV slot.</summary>
    public ReadOnlySpan<int> Positions { get; set; }

    /// <summary>Custom mask bits, or empty.</summary>
    public ReadOnlySpan<byte> Mask { get; set; }

    /// <summary>[B+1]: bytes of <see cref="Mask"/> of each sequence; empty where there is no mask.</summary>
    public ReadOnlySpan<int> MaskIndptr { get; set; }

    /// <summary>Shared prefixes, or empty.</summary>
    public ReadOnlySpan<SharedPrefix> Prefixes { get; set; }
}

/// <summary>One step's plan at fixed device addresses: updated once a step, used by every layer.</summary>
public sealed unsafe class Batch : NativeHandle
{
    /// <summary>Allocates a plan's memory.</summary>
    public Batch(ComputeStream stream, KvCache cache, BatchOptions options)
    {
        using Lease lease = default;
        Cache = cache;
        Options = options;
        sl_batch_options native = default;
        native.size = (uint)sizeof(sl_batch_options);
        native.max_tokens = options.MaxTokens;
        native.max_sequences = options.MaxSequences;
        native.max_page_ids = options.MaxPageIds;
        native.max_mask_bytes = options.MaxMaskBytes;
        native.max_prefixes = options.MaxPrefixes;
        native.query_heads = options.QueryHeads;
        native.max_prefix_rows = options.MaxPrefixRows;
        native.sharing = options.Sharing;
        sl_batch* batch;
        SluiceException.ThrowIfFailed(NativeMethods.sl_batch_create((sl_stream*)lease.Hold(stream), (sl_kv_cache*)lease.Hold(cache), &native, &batch));
        Adopt(batch);
    }

    /// <summary>The cache whose pages it names.</summary>
    public KvCache Cache { get; }

    /// <summary>What it was made with.</summary>
    public BatchOptions Options { get; }

    /// <summary>Checks a step and puts it in force, ordered on the stream.</summary>
    /// <exception cref="ArgumentException">Arrays whose lengths do not fit each other.</exception>
    /// <exception cref="SluiceException">A value out of its range; the last plan stays in force.</exception>
    public void Update(ComputeStream stream, BatchStep step)
    {
        int sequences = step.KvLengths.Length;
        Expect(nameof(step.QueryIndptr), step.QueryIndptr.Length, sequences + 1);
        Expect(nameof(step.PageIndptr), step.PageIndptr.Length, sequences + 1);
        Expect(nameof(step.PageIds), step.PageIds.Length, step.PageIndptr[^1]);
        if (!step.Positions.IsEmpty)
        {
            Expect(nameof(step.Positions), step.Positions.Length, step.QueryIndptr[^1]);
        }

        if (!step.Mask.IsEmpty || !step.MaskIndptr.IsEmpty)
        {
            Expect(nameof(step.MaskIndptr), step.MaskIndptr.Length, sequences + 1);
            Expect(nameof(step.Mask), step.Mask.Length, step.MaskIndptr[^1]);
        }

        using Lease lease = default;
        fixed (int* query = step.QueryIndptr, lengths = step.KvLengths, pageIndptr = step.PageIndptr, pages = step.PageIds, positions = step.Positions, maskIndptr = step.MaskIndptr)
        fixed (byte* mask = step.Mask)
        fixed (SharedPrefix* prefixes = step.Prefixes)
        {
            sl_batch_step native = default;
            native.size = (uint)sizeof(sl_batch_step);
            native.num_sequences = sequences;
            native.query_indptr = query;
            native.kv_lengths = lengths;
            native.page_indptr = pageIndptr;
            native.page_ids = pages;
            native.positions = positions;
            native.mask = mask;
            native.mask_indptr = mask == null ? null : maskIndptr;
            native.prefixes = (sl_prefix*)prefixes;
            native.num_prefixes = step.Prefixes.Length;
            SluiceException.ThrowIfFailed(NativeMethods.sl_batch_update((sl_stream*)lease.Hold(stream), (sl_batch*)lease.Hold(this), &native));
        }
    }

    /// <summary>The plan in force.</summary>
    /// <exception cref="SluiceException">There is none yet.</exception>
    public BatchInfo ReadInfo()
    {
        using Lease lease = default;
        sl_batch_info i = default;
        i.size = (uint)sizeof(sl_batch_info);
        SluiceException.ThrowIfFailed(NativeMethods.sl_batch_get_info((sl_batch*)lease.Hold(this), &i));
        return new BatchInfo(i.num_tokens, i.num_sequences, i.num_prefixes, i.prefix_rows, i.keys, i.keys_shared);
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle()
    {
        NativeMethods.sl_batch_release((sl_batch*)handle);
        return true;
    }

    private static void Expect(string name, int found, int expected)
    {
        if (found != expected)
        {
            throw new ArgumentException($"{name} holds {found} values, expected {expected}");
        }
    }
}
