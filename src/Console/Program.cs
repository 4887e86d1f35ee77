using System.CommandLine;
using Sluice;
using Sluice.Console;
using Sluice.Interop;

// sluice: verbs over Sluice.Host, with no logic of their own. Exit codes: 0, 1 (it failed, one line says why), 2 (usage),
// 130 (cancelled).
Output.Install();
Option<bool> verbose = new("--verbose") { Description = "Show where an error came from", Recursive = true };
RootCommand root = new("Runs large language models.") { verbose };
root.Subcommands.Add(GenerateCommand.Create());
root.Subcommands.Add(ChatCommand.Create());
root.Subcommands.Add(InspectCommand.Create());
root.Subcommands.Add(TokenizeCommand.Create());
root.Subcommands.Add(PerplexityCommand.Create());
root.Subcommands.Add(BenchCommand.Create());
root.Subcommands.Add(RenderCommand.Create());
root.Subcommands.Add(ConvertCommand.Create());
root.Subcommands.Add(PullCommand.Create());
root.Subcommands.Add(MakeRandomCommand.Create());
root.Subcommands.Add(EvalCommand.Create());
root.Subcommands.Add(TuneCommand.Create());

const int BrokenPipe = 32; // EPIPE
ParseResult parsed = root.Parse(args);
if (parsed.Errors.Count > 0)
{
    foreach (string message in parsed.Errors.Select(e => e.Message).Distinct())
    {
        System.Console.Error.WriteLine($"sluice: {message}");
    }

    System.Console.Error.WriteLine("sluice: see 'sluice --help'");
    return 2;
}

try
{
    // The chat stays when an answer is interrupted: the library's own handler would end the program two seconds later.
    bool interactive = parsed.CommandResult.Command.Name == ChatCommand.Name;
    return await parsed.InvokeAsync(new InvocationConfiguration
    {
        EnableDefaultExceptionHandler = false,
        ProcessTerminationTimeout = interactive ? null : TimeSpan.FromSeconds(2),
    });
}
catch (IOException e) when (e.HResult == BrokenPipe)
{
    return 0; // the reader has what it wanted
}
catch (OperationCanceledException)
{
    System.Console.Error.WriteLine("sluice: cancelled");
    return 130;
}
catch (Exception e) when (e is SluiceModelException or SluiceException or ContextFullException or Sluice.Paging.PagesExhaustedException or IOException
    or UnauthorizedAccessException or ArgumentException or InvalidOperationException or DllNotFoundException or NotSupportedException or OutOfMemoryException)
{
    // What a user can do something about: one line.
    System.Console.Error.WriteLine($"sluice: {(parsed.GetValue(verbose) ? e.ToString() : e.Message.ReplaceLineEndings(" "))}");
    return 1;
}
catch (Exception e)
{
    System.Console.Error.WriteLine($"sluice: an unexpected error, please report it: {(parsed.GetValue(verbose) ? e.ToString() : $"{e.GetType().Name}: {e.Message.ReplaceLineEndings(" ")} (--verbose shows where)")}");
    return 1;
}
finally
{
    Output.Flush();
}
