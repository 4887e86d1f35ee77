using System.Diagnostics;

namespace Sluice.Tests.Golden;

/// <summary>The console program in a process of its own.</summary>
internal static class ConsoleProgram
{
    public static (int Code, string Output, string Error) Run((string Name, string Value)[] environment, string input, params string[] arguments)
    {
        ProcessStartInfo start = new(Find(), arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        foreach ((string name, string value) in environment)
        {
            start.Environment[name] = value;
        }

        using Process process = Process.Start(start)!;
        Task<string> error = process.StandardError.ReadToEndAsync();
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output, error.GetAwaiter().GetResult());
    }

    // The program that is named, or else the one that the build put beside these tests' own artifacts.
    public static string Find()
    {
        if (Environment.GetEnvironmentVariable("SLUICE_CONSOLE") is { Length: > 0 } named)
        {
            return named;
        }

        for (DirectoryInfo? at = new(AppContext.BaseDirectory); at is not null; at = at.Parent)
        {
            string candidate = Path.Combine(at.FullName, "artifacts", "bin", "sluice");
            if (File.Exists(candidate))
            {
                return candidate;
            }
        }

        Assert.Skip("the console is not built (./build.sh builds it), and SLUICE_CONSOLE names none");
        throw new InvalidOperationException();
    }
}
