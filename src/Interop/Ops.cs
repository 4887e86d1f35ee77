namespace Sluice.Interop;

/// <summary>What <see cref="ComputeStream.FusedQkv"/> works on; absent tensors are <see langword="default"/>. Shapes: sl_fused_qkv_args.</summary>
public readonly record struct FusedQkvArgs
{
    /// <summary>[T,C].</summary>
    public required Tensor X { get; init; }

    /// <summary>[C], or absent: x as it is.</summary>
    public Tensor NormWeight { get; init; }

    /// <summary>[H*D,C].</summary>
    public required Weight Wq { get; init; }

    /// <summary>[Hkv*D,C].</summary>
    public required Weight Wk { get; init; }

    /// <summary>[Hkv*Dv,C].</summary>
    public required Weight Wv { get; init; }

    /// <summary>[H*D], or absent.</summary>
    public Tensor BiasQ { get; init; }

    /// <summary>[Hkv*D], or absent.</summary>
    public Tensor BiasK { get; init; }

    /// <summary>[Hkv*Dv], or absent.</summary>
    public Tensor BiasV { get; init; }

    /// <summary>[D]: RMSNorm of each head of q; [H*D]: of the whole row; or absent.</summary>
    public Tensor NormQ { get; init; }

    /// <summary>[D]: RMSNorm of each head of k; [Hkv*D]: of the whole row; or absent. Of the same kind as <see cref="NormQ"/>.</summary>
    public Tensor NormK { get; init; }

    /// <summary>f32 [R/2], or absent: no RoPE.</summary>
    public Tensor InvFreq { get; init; }

    /// <summary>The cache that K and V are appended to.</summary>
    public required KvCache Cache { get; init; }

    /// <summary>The cache's layer.</summary>
    public int Layer { get; init; }

    /// <summary>The step's plan.</summary>
    public required Batch Batch { get; init; }

    /// <summary>Out: [T,H,D].</summary>
    public required Tensor Q { get; init; }

    /// <summary>Of the norm of x.</summary>
    public float NormEps { get; init; }

    /// <summary>Of the norms of q and k.</summary>
    public float QkNormEps { get; init; }

    /// <summary>Multiplies cos and sin; 0: 1.</summary>
    public float RopeScale { get; init; }

    /// <summary>Which dims pair up.</summary>
    public RopeKind RopeKind { get; init; }

    /// <summary>f32 [T,ceil(C/16)]: the squares of an f32 x as <see cref="ComputeStream.Linear"/> wrote them; or absent.</summary>
    public Tensor Squares { get; init; }
}

/// <summary>What <see cref="ComputeStream.GatedLinear"/> works on; absent tensors are <see langword="default"/>. Shapes: sl_gated_linear_args.</summary>
public readonly record struct GatedLinearArgs
{
    /// <summary>[T,C].</summary>
    public required Tensor X { get; init; }

    /// <summary>[C], or absent: x as it is.</summary>
    public Tensor NormWeight { get; init; }

    /// <summary>[F,C].</summary>
    public required Weight Gate { get; init; }

    /// <summary>[F,C].</summary>
    public required Weight Up { get; init; }

    /// <summary>[F], or absent.</summary>
    public Tensor BiasGate { get; init; }

    /// <summary>[F], or absent.</summary>
    public Tensor BiasUp { get; init; }

    /// <summary>Out: [T,F].</summary>
    public required Tensor Y { get; init; }

    /// <summary>Of the norm of x.</summary>
    public float NormEps { get; init; }

    /// <summary>Of what the gate gives.</summary>
    public Activation Activation { get; init; }

    /// <summary>f32 [T,ceil(C/16)]: the squares of an f32 x as <see cref="ComputeStream.Linear"/> wrote them; or absent.</summary>
    public Tensor Squares { get; init; }
}

/// <summary>What attention works on; absent tensors are <see langword="default"/>. Shapes: sl_attention_args.</summary>
public readonly record struct AttentionArgs
{
    /// <summary>The cache.</summary>
    public required KvCache Cache { get; init; }

    /// <summary>The cache's layer.</summary>
    public int Layer { get; init; }

    /// <summary>The step's plan.</summary>
    public required Batch Batch { get; init; }

    /// <summary>[T,H,D].</summary>
    public required Tensor Q { get; init; }

    /// <summary>Out: [T,H,Dv].</summary>
    public required Tensor O { get; init; }

    /// <summary>Out: f32 [T,H], or absent.</summary>
    public Tensor Lse2 { get; init; }

    /// <summary>f32 [H], or absent.</summary>
    public Tensor Sinks { get; init; }

    /// <summary>f32 [H], or absent.</summary>
    public Tensor AlibiSlopes { get; init; }

    /// <summary>Of q.k; 0: 1/sqrt(D).</summary>
    public float Scale { get; init; }

    /// <summary>0: none.</summary>
    public float SoftCap { get; init; }

    /// <summary>Tokens; 0: all.</summary>
    public int Window { get; init; }

    /// <summary>Keys up to the query's own slot only.</summary>
    public bool Causal { get; init; }
}

/// <summary>What <see cref="ComputeStream.Penalties"/> works on: sl_penalties_args.</summary>
public readonly record struct PenaltiesArgs
{
    /// <summary>f32 [B,V], changed in place.</summary>
    public required Tensor Logits { get; init; }

    /// <summary>i32 [n], or absent.</summary>
    public Tensor History { get; init; }

    /// <summary>i32 [B+1].</summary>
    public Tensor HistoryIndptr { get; init; }

    /// <summary>f32 [B].</summary>
    public Tensor Repetition { get; init; }

    /// <summary>f32 [B].</summary>
    public Tensor Presence { get; init; }

    /// <summary>f32 [B].</summary>
    public Tensor Frequency { get; init; }

    /// <summary>i32 [m], or absent.</summary>
    public Tensor BiasIds { get; init; }

    /// <summary>f32 [m].</summary>
    public Tensor BiasValues { get; init; }

    /// <summary>i32 [B+1].</summary>
    public Tensor BiasIndptr { get; init; }
}

/// <summary>What <see cref="ComputeStream.Sample"/> works on: sl_sample_args.</summary>
public readonly record struct SampleArgs
{
    /// <summary>f32 [B,V].</summary>
    public required Tensor Logits { get; init; }

    /// <summary>f32 [B]; 0: arg-max.</summary>
    public required Tensor Temperature { get; init; }

    /// <summary>i32 [B]; 0: all.</summary>
    public required Tensor TopK { get; init; }

    /// <summary>f32 [B]; 1: all.</summary>
    public required Tensor TopP { get; init; }

    /// <summary>f32 [B]; 0: all.</summary>
    public required Tensor MinP { get; init; }

    /// <summary>i64 [B].</summary>
    public required Tensor Seed { get; init; }

    /// <summary>i64 [B].</summary>
    public required Tensor Position { get; init; }

    /// <summary>Out: i32 [B].</summary>
    public required Tensor Ids { get; init; }
}

/// <content>One typed method an op. What each computes, its shapes and its rounding stand in sluice.h.</content>
public sealed unsafe partial class ComputeStream
{
    /// <summary>y[t,:] = scale * table[ids[t],:].</summary>
    /// <exception cref="SluiceException">As every op: a shape, an element type or an argument that does not fit, or a failed device.</exception>
    public void Embedding(in Tensor ids, Weight table, float scale, in Tensor y)
    {
        using Lease lease = default;
        sl_tensor i = lease.Hold(ids), o = lease.Hold(y);
        SluiceException.ThrowIfFailed(NativeMethods.sl_embedding((sl_stream*)lease.Hold(this), &i, (sl_weight*)lease.Hold(table), scale, &o));
    }

    /// <summary>y[i,:] = x[rows[i],:].</summary>
    public void Gather(in Tensor x, in Tensor rows, in Tensor y)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(x), r = lease.Hold(rows), o = lease.Hold(y);
        SluiceException.ThrowIfFailed(NativeMethods.sl_gather((sl_stream*)lease.Hold(this), &a, &r, &o));
    }

    /// <summary>y = x normalised by its root mean square, times w.</summary>
    public void RmsNorm(in Tensor x, in Tensor w, float eps, in Tensor y)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(x), b = lease.Hold(w), o = lease.Hold(y);
        SluiceException.ThrowIfFailed(NativeMethods.sl_rms_norm((sl_stream*)lease.Hold(this), &a, &b, eps, &o));
    }

    /// <summary>residual += x; y = RmsNorm(residual, w).</summary>
    public void AddRmsNorm(in Tensor x, in Tensor residual, in Tensor w, float eps, in Tensor y)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(x), r = lease.Hold(residual), b = lease.Hold(w), o = lease.Hold(y);
        SluiceException.ThrowIfFailed(NativeMethods.sl_add_rms_norm((sl_stream*)lease.Hold(this), &a, &r, &b, eps, &o));
    }

    /// <summary>y = residual + RmsNorm(x, w): the norm after a block.</summary>
    public void RmsNormAdd(in Tensor x, in Tensor w, float eps, in Tensor residual, in Tensor y)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(x), b = lease.Hold(w), r = lease.Hold(residual), o = lease.Hold(y);
        SluiceException.ThrowIfFailed(NativeMethods.sl_rms_norm_add((sl_stream*)lease.Hold(this), &a, &b, eps, &r, &o));
    }

    /// <summary>v = scale * (x * weight^T + bias), capped by softCap * tanh(v / softCap); y = v + residual.</summary>
    /// <param name="x">[T,K].</param>
    /// <param name="weight">[N,K].</param>
    /// <param name="y">Out: [T,N].</param>
    /// <param name="bias">[N], or absent.</param>
    /// <param name="residual">[T,N], or absent; may be <paramref name="y"/>.</param>
    /// <param name="scale">0: 1.</param>
    /// <param name="softCap">0: none.</param>
    /// <param name="squares">Out: f32 [T,ceil(N/16)], sums of y's squares for the norm that comes next; or absent.</param>
    /// <param name="route">Which kernels are to take it (cuda, simt), for measuring them.</param>
    public void Linear(
        in Tensor x, Weight weight, in Tensor y, in Tensor bias = default, in Tensor residual = default, float scale = 0, float softCap = 0, in Tensor squares = default, Route route = Route.Any)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(x), o = lease.Hold(y), b = lease.Hold(bias), r = lease.Hold(residual), q = lease.Hold(squares);
        sl_linear_args args = default;
        args.size = (uint)sizeof(sl_linear_args);
        args.scale = scale;
        args.soft_cap = softCap;
        args.route = route;
        args.x = &a;
        args.weight = (sl_weight*)lease.Hold(weight);
        args.bias = Optional(&b);
        args.residual = Optional(&r);
        args.y = &o;
        args.squares = Optional(&q);
        SluiceException.ThrowIfFailed(NativeMethods.sl_linear((sl_stream*)lease.Hold(this), &args));
    }

    /// <summary>Norm, the projections of gate and up, bias, activation(gate) * up.</summary>
    public void GatedLinear(in GatedLinearArgs a)
    {
        using Lease lease = default;
        sl_tensor x = lease.Hold(a.X), norm = lease.Hold(a.NormWeight), bg = lease.Hold(a.BiasGate), bu = lease.Hold(a.BiasUp), y = lease.Hold(a.Y);
        sl_tensor squares = lease.Hold(a.Squares);
        sl_gated_linear_args args = default;
        args.size = (uint)sizeof(sl_gated_linear_args);
        args.activation = a.Activation;
        args.x = &x;
        args.norm_weight = Optional(&norm);
        args.gate = (sl_weight*)lease.Hold(a.Gate);
        args.up = (sl_weight*)lease.Hold(a.Up);
        args.bias_gate = Optional(&bg);
        args.bias_up = Optional(&bu);
        args.y = &y;
        args.norm_eps = a.NormEps;
        args.squares = Optional(&squares);
        SluiceException.ThrowIfFailed(NativeMethods.sl_gated_linear((sl_stream*)lease.Hold(this), &args));
    }

    /// <summary>Norm, three projections, bias, QK-norm, RoPE, append of K and V.</summary>
    public void FusedQkv(in FusedQkvArgs a)
    {
        using Lease lease = default;
        sl_tensor x = lease.Hold(a.X), norm = lease.Hold(a.NormWeight), bq = lease.Hold(a.BiasQ), bk = lease.Hold(a.BiasK), bv = lease.Hold(a.BiasV);
        sl_tensor nq = lease.Hold(a.NormQ), nk = lease.Hold(a.NormK), freq = lease.Hold(a.InvFreq), q = lease.Hold(a.Q), squares = lease.Hold(a.Squares);
        sl_fused_qkv_args args = default;
        args.size = (uint)sizeof(sl_fused_qkv_args);
        args.layer = a.Layer;
        args.x = &x;
        args.norm_weight = Optional(&norm);
        args.wq = (sl_weight*)lease.Hold(a.Wq);
        args.wk = (sl_weight*)lease.Hold(a.Wk);
        args.wv = (sl_weight*)lease.Hold(a.Wv);
        args.bias_q = Optional(&bq);
        args.bias_k = Optional(&bk);
        args.bias_v = Optional(&bv);
        args.norm_q = Optional(&nq);
        args.norm_k = Optional(&nk);
        args.inv_freq = Optional(&freq);
        args.cache = (sl_kv_cache*)lease.Hold(a.Cache);
        args.batch = (sl_batch*)lease.Hold(a.Batch);
        args.q = &q;
        args.norm_eps = a.NormEps;
        args.qk_norm_eps = a.QkNormEps;
        args.rope_scale = a.RopeScale;
        args.rope_kind = a.RopeKind;
        args.squares = Optional(&squares);
        SluiceException.ThrowIfFailed(NativeMethods.sl_fused_qkv((sl_stream*)lease.Hold(this), &args));
    }

    /// <summary>Turns pair i of each head by positions[t] * invFreq[i].</summary>
    public void Rope(in Tensor x, in Tensor positions, in Tensor invFreq, RopeKind kind, float scale, in Tensor y)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(x), p = lease.Hold(positions), f = lease.Hold(invFreq), o = lease.Hold(y);
        sl_rope_args args = default;
        args.size = (uint)sizeof(sl_rope_args);
        args.kind = kind;
        args.x = &a;
        args.positions = &p;
        args.inv_freq = &f;
        args.y = &o;
        args.scale = scale;
        SluiceException.ThrowIfFailed(NativeMethods.sl_rope((sl_stream*)lease.Hold(this), &args));
    }

    /// <summary>Writes k and v to the batch's slots of a layer.</summary>
    public void KvAppend(KvCache cache, int layer, Batch batch, in Tensor k, in Tensor v)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(k), b = lease.Hold(v);
        SluiceException.ThrowIfFailed(NativeMethods.sl_kv_append(
            (sl_stream*)lease.Hold(this), (sl_kv_cache*)lease.Hold(cache), layer, (sl_batch*)lease.Hold(batch), &a, &b));
    }

    /// <summary>Attention over paged KV for ragged queries.</summary>
    public void PagedAttention(in AttentionArgs args) => Attention(args, cascade: false);

    /// <summary>The same result; each prefix of the batch is read once for all of its sequences.</summary>
    public void CascadeAttention(in AttentionArgs args) => Attention(args, cascade: true);

    /// <summary>Merges attention states over disjoint keys.</summary>
    public void MergeStates(in Tensor o, in Tensor lse2, in Tensor y, in Tensor yLse2 = default)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(o), l = lease.Hold(lse2), b = lease.Hold(y), m = lease.Hold(yLse2);
        SluiceException.ThrowIfFailed(NativeMethods.sl_merge_states((sl_stream*)lease.Hold(this), &a, &l, &b, Optional(&m)));
    }

    /// <summary>y = activation(gate) * up.</summary>
    public void GatedActivation(Activation activation, in Tensor gate, in Tensor up, in Tensor y)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(gate), b = lease.Hold(up), o = lease.Hold(y);
        SluiceException.ThrowIfFailed(NativeMethods.sl_gated_activation((sl_stream*)lease.Hold(this), activation, &a, &b, &o));
    }

    /// <summary>Repetition, presence and frequency penalties, then logit biases.</summary>
    public void Penalties(in PenaltiesArgs a)
    {
        using Lease lease = default;
        sl_tensor logits = lease.Hold(a.Logits), history = lease.Hold(a.History), indptr = lease.Hold(a.HistoryIndptr);
        sl_tensor repetition = lease.Hold(a.Repetition), presence = lease.Hold(a.Presence), frequency = lease.Hold(a.Frequency);
        sl_tensor biasIds = lease.Hold(a.BiasIds), biasValues = lease.Hold(a.BiasValues), biasIndptr = lease.Hold(a.BiasIndptr);
        sl_penalties_args args = default;
        args.size = (uint)sizeof(sl_penalties_args);
        args.logits = &logits;
        args.history = Optional(&history);
        args.history_indptr = Optional(&indptr);
        args.repetition = Optional(&repetition);
        args.presence = Optional(&presence);
        args.frequency = Optional(&frequency);
        args.bias_ids = Optional(&biasIds);
        args.bias_values = Optional(&biasValues);
        args.bias_indptr = Optional(&biasIndptr);
        SluiceException.ThrowIfFailed(NativeMethods.sl_penalties((sl_stream*)lease.Hold(this), &args));
    }

    /// <summary>The lowest id of each row's largest logit.</summary>
    public void ArgMax(in Tensor logits, in Tensor ids)
    {
        using Lease lease = default;
        sl_tensor a = lease.Hold(logits), o = lease.Hold(ids);
        SluiceException.ThrowIfFailed(NativeMethods.sl_argmax((sl_stream*)lease.Hold(this), &a, &o));
    }

    /// <summary>Draws one token a row.</summary>
    public void Sample(in SampleArgs a)
    {
        using Lease lease = default;
        sl_tensor logits = lease.Hold(a.Logits), temperature = lease.Hold(a.Temperature), topK = lease.Hold(a.TopK), topP = lease.Hold(a.TopP);
        sl_tensor minP = lease.Hold(a.MinP), seed = lease.Hold(a.Seed), position = lease.Hold(a.Position), ids = lease.Hold(a.Ids);
        sl_sample_args args = default;
        args.size = (uint)sizeof(sl_sample_args);
        args.logits = &logits;
        args.temperature = &temperature;
        args.top_k = &topK;
        args.top_p = &topP;
        args.min_p = &minP;
        args.seed = &seed;
        args.position = &position;
        args.ids = &ids;
        SluiceException.ThrowIfFailed(NativeMethods.sl_sample((sl_stream*)lease.Hold(this), &args));
    }

    /// <summary>Log-softmax of the logits at <paramref name="ids"/> and at the n largest; each pair may be absent.</summary>
    public void LogProbs(in Tensor logits, in Tensor ids, in Tensor logProbs, in Tensor topIds = default, in Tensor topLogProbs = default)
    {
        using Lease lease = default;
        sl_tensor l = lease.Hold(logits), i = lease.Hold(ids), p = lease.Hold(logProbs), ti = lease.Hold(topIds), tp = lease.Hold(topLogProbs);
        sl_log_probs_args args = default;
        args.size = (uint)sizeof(sl_log_probs_args);
        args.logits = &l;
        args.ids = Optional(&i);
        args.log_probs = Optional(&p);
        args.top_ids = Optional(&ti);
        args.top_log_probs = Optional(&tp);
        SluiceException.ThrowIfFailed(NativeMethods.sl_log_probs((sl_stream*)lease.Hold(this), &args));
    }

    private static sl_tensor* Optional(sl_tensor* t) => t->rank == 0 ? null : t;

    private void Attention(in AttentionArgs a, bool cascade, [System.Runtime.CompilerServices.CallerMemberName] string method = "")
    {
        using Lease lease = default;
        sl_tensor q = lease.Hold(a.Q), o = lease.Hold(a.O), lse2 = lease.Hold(a.Lse2), sinks = lease.Hold(a.Sinks), slopes = lease.Hold(a.AlibiSlopes);
        sl_attention_args args = default;
        args.size = (uint)sizeof(sl_attention_args);
        args.layer = a.Layer;
        args.cache = (sl_kv_cache*)lease.Hold(a.Cache);
        args.batch = (sl_batch*)lease.Hold(a.Batch);
        args.q = &q;
        args.o = &o;
        args.lse2 = Optional(&lse2);
        args.sinks = Optional(&sinks);
        args.alibi_slopes = Optional(&slopes);
        args.scale = a.Scale;
        args.soft_cap = a.SoftCap;
        args.window = a.Window;
        args.causal = a.Causal ? 1 : 0;
        sl_stream* stream = (sl_stream*)lease.Hold(this, method);
        SluiceException.ThrowIfFailed(cascade ? NativeMethods.sl_cascade_attention(stream, &args) : NativeMethods.sl_paged_attention(stream, &args));
    }
}
