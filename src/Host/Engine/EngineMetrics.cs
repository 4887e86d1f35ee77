using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using Sluice.Interop;
using Sluice.Scheduling;

namespace Sluice;

/// <summary>
/// What engines tell of themselves: a meter and an activity source, both named "Sluice", for OpenTelemetry or any other listener. Names and units are those of its conventions for
/// generative models where there is one. Times are of the monotonic clock. Where nobody listens a step costs a few comparisons.
/// </summary>
public static class EngineMetrics
{
    /// <summary>The name of the meter and of the activity source.</summary>
    public const string Name = "Sluice";

    private static readonly ConcurrentDictionary<Engine, KeyValuePair<string, object?>> Engines = new();
    private static readonly ActivitySource Source = new(Name);
    private static readonly Meter Meter = new(Name);

    private static readonly Histogram<double> Duration = Seconds("gen_ai.server.request.duration", "From a request to its end");
    private static readonly Histogram<double> ToFirst = Seconds("gen_ai.server.time_to_first_token", "From a request to its first token");
    private static readonly Histogram<double> PerToken = Seconds("gen_ai.server.time_per_output_token", "Mean time of a request's tokens behind the first");
    private static readonly Histogram<double> Queued = Seconds("sluice.request.queue_time", "From a request to its first step");
    private static readonly Histogram<double> Prefill = Seconds("sluice.request.prefill_time", "From a request's first step to its first token");
    private static readonly Histogram<double> Decode = Seconds("sluice.request.decode_time", "From a request's first token to its last");
    private static readonly Counter<long> Steps = Meter.CreateCounter<long>("sluice.steps", "{step}", "Steps");
    private static readonly Counter<long> Computed = Meter.CreateCounter<long>("sluice.tokens.computed", "{token}", "Tokens whose keys were computed");
    private static readonly Counter<long> Cached = Meter.CreateCounter<long>("sluice.tokens.cached", "{token}", "Tokens of admitted sequences that the prefix cache had");
    private static readonly Counter<long> Generated = Meter.CreateCounter<long>("sluice.tokens.generated", "{token}", "Tokens that were chosen");
    private static readonly Counter<long> Preemptions = Meter.CreateCounter<long>("sluice.preemptions", "{preemption}", "Sequences that had to make room");
    private static readonly Counter<long> KeysRead = Meter.CreateCounter<long>("sluice.keys.read", "{key}", "Keys that attention read in a layer, shared ones once");
    private static readonly Counter<long> KeysSaved = Meter.CreateCounter<long>("sluice.keys.saved", "{key}", "Keys that attention had not to read again, as sequences share them");

    static EngineMetrics()
    {
        Meter.CreateObservableGauge("sluice.sequences.running", () => Each(s => s.Running), "{sequence}", "Sequences that have pages");
        Meter.CreateObservableGauge("sluice.sequences.waiting", () => Each(s => s.Waiting), "{sequence}", "Sequences that wait for pages");
        Meter.CreateObservableGauge("sluice.kv_cache.usage", () => Each(s => (s.Pages - s.FreePages - s.CachedPages) / (double)s.Pages), "1", "Pages in use, of all");
        Meter.CreateObservableGauge("sluice.kv_cache.cached", () => Each(s => s.CachedPages / (double)s.Pages), "1", "Pages kept for later requests, of all");
    }

    internal static void Add(Engine engine) => Engines[engine] = Tag(engine);

    internal static void Remove(Engine engine) => Engines.TryRemove(engine, out _);

    internal static Activity? Begin(Generation g)
    {
        // The caller's activity is the parent; the request's own is nobody's current one, for it lives on other threads.
        Activity? before = Activity.Current, activity = null;
        try
        {
            activity = Source.StartActivity("generate", ActivityKind.Internal);
        }
        catch (Exception)
        {
            // Listeners are called from here and may throw. Their fault is theirs: it ends no request and no step.
        }

        Activity.Current = before;
        activity?.SetTag("gen_ai.operation.name", "text_completion").SetTag("gen_ai.request.model", g.Engine.Model.Config.Name).SetTag("gen_ai.response.id", g.Id);
        return activity;
    }

    internal static void End(Generation g, Exception? error)
    {
        try
        {
            RecordEnd(g, error);
        }
        catch (Exception)
        {
            // A listener's.
        }

        try
        {
            StopActivity(g, error);
        }
        catch (Exception)
        {
            // A listener's.
        }
    }

    internal static void CountStep(Engine engine, StepPlan plan, in BatchInfo info, int chosen)
    {
        if (!Steps.Enabled && !Computed.Enabled && !Generated.Enabled && !KeysRead.Enabled && !KeysSaved.Enabled && !Cached.Enabled && !Preemptions.Enabled)
        {
            return;
        }

        if (!Engines.TryGetValue(engine, out KeyValuePair<string, object?> tag))
        {
            tag = Tag(engine);
        }

        try
        {
            Steps.Add(1, tag);
            Computed.Add(plan.Statistics.Tokens, tag);
            Cached.Add(plan.Statistics.CachedTokens, tag);
            Generated.Add(chosen, tag);
            Preemptions.Add(plan.Statistics.Preempted, tag);
            KeysRead.Add(info.KeysShared, tag);
            KeysSaved.Add(info.Keys - info.KeysShared, tag);
        }
        catch (Exception)
        {
            // A listener's.
        }
    }

    private static void RecordEnd(Generation g, Exception? error)
    {
        KeyValuePair<string, object?> tag = Tag(g.Engine);
        RequestTimes times = g.Times;
        if (error is null)
        {
            Duration.Record(times.Total.TotalSeconds, tag);
        }
        else
        {
            Duration.Record(times.Total.TotalSeconds, tag, ErrorType(error));
        }

        Record(Queued, times.Queued, tag);
        Record(Prefill, times.Prefill, tag);
        Record(Decode, times.Decode, tag);
        Record(ToFirst, g.TimeToFirstToken, tag);
        if (times is { Following: > 0, Decode: { } decode })
        {
            PerToken.Record(decode.TotalSeconds / times.Following, tag);
        }
    }

    private static void StopActivity(Generation g, Exception? error)
    {
        RequestTimes times = g.Times;
        if (g.Activity is { } activity)
        {
            activity.SetTag("gen_ai.usage.input_tokens", g.PromptTokens).SetTag("gen_ai.usage.output_tokens", g.GeneratedTokens)
                .SetTag("sluice.cached_tokens", g.CachedPromptTokens).SetTag("sluice.preemptions", g.Preemptions)
                .SetTag("sluice.queue_seconds", times.Queued?.TotalSeconds).SetTag("sluice.first_token_seconds", g.TimeToFirstToken?.TotalSeconds);
            if (error is not null)
            {
                activity.SetStatus(ActivityStatusCode.Error, error.Message).SetTag(ErrorType(error).Key, ErrorType(error).Value);
            }

            activity.Stop();
        }
    }

    private static void Record(Histogram<double> histogram, TimeSpan? time, KeyValuePair<string, object?> tag)
    {
        if (time is { } known)
        {
            histogram.Record(known.TotalSeconds, tag);
        }
    }

    private static IEnumerable<Measurement<T>> Each<T>(Func<EngineStatistics, T> value)
        where T : struct => Engines.Select(e => new Measurement<T>(value(e.Key.Statistics), e.Value));

    private static KeyValuePair<string, object?> ErrorType(Exception error) => new("error.type", error.GetType().FullName);

    private static KeyValuePair<string, object?> Tag(Engine engine) => new("gen_ai.request.model", engine.Model.Config.Name);

    private static Histogram<double> Seconds(string name, string description) => Meter.CreateHistogram<double>(name, "s", description);
}
