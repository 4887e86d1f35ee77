using Spectre.Console;
using Spectre.Console.Rendering;

namespace Sluice.Console;

/// <summary>What changes while a person looks on.</summary>
internal static partial class Terminal
{
    /// <summary>Runs work that reports what it does; shows the last report where standard error is a terminal, and nothing elsewhere.</summary>
    public static async Task<TResult> WithLiveAsync<TResult, TReport>(Func<TReport, IRenderable> draw, Func<IProgress<TReport>?, Task<TResult>> work)
    {
        if (System.Console.IsErrorRedirected)
        {
            return await work(null);
        }

        return await Error.Live(new Text("")).AutoClear(true).StartAsync(context => work(new Shown<TReport>(context, draw)));
    }

    private sealed class Shown<T>(LiveDisplayContext context, Func<T, IRenderable> draw) : IProgress<T>
    {
        public void Report(T value) => context.UpdateTarget(draw(value));
    }
}
