namespace Sluice.Tests;

/// <summary>The folder of models, goldens and vectors that lies beside a checkout; tests that need it skip where it is absent.</summary>
public static class SharedData
{
    /// <summary>The folder's full path, or null: <c>SLUICE_SHARED</c> if set, else the nearest <c>shared/goldens</c> above the test binary.</summary>
    public static string? Root { get; } = Find();

    private static string? Find()
    {
        string? named = Environment.GetEnvironmentVariable("SLUICE_SHARED");
        if (!string.IsNullOrEmpty(named))
        {
            return Directory.Exists(named) ? named : null;
        }

        for (DirectoryInfo? at = new(AppContext.BaseDirectory); at is not null; at = at.Parent)
        {
            string candidate = Path.Combine(at.FullName, "shared");
            if (Directory.Exists(Path.Combine(candidate, "goldens")))
            {
                return candidate;
            }
        }

        return null;
    }

    /// <summary>The full path of a file in the folder; skips the running test where the folder is absent.</summary>
    public static string PathOf(params string[] parts)
    {
        Assert.SkipWhen(Root is null, "the folder of models and goldens ('shared' beside the checkout, or SLUICE_SHARED) is not there");
        string path = Path.Combine([Root!, .. parts]);

        // A bundle carries some of the models only.
        Assert.SkipWhen(Environment.GetEnvironmentVariable("SLUICE_SHARED_PARTIAL") == "1" && !Path.Exists(path), "this bundle does not carry " + parts[^1]);
        return path;
    }
}
