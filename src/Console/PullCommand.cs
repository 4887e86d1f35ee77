using System.CommandLine;
using Sluice.Hub;

namespace Sluice.Console;

/// <summary>sluice pull OWNER/NAME[@REVISION][:FILE]: brings a model from the hub into the cache, and prints where it is.</summary>
internal static class PullCommand
{
    /// <summary>What a model on the hub begins with where a path could stand too.</summary>
    public const string Prefix = "hf:";

    public static Command Create()
    {
        Argument<string> model = new("MODEL")
        {
            Description = "OWNER/NAME[@REVISION][:FILE]; FILE may be a pattern (*Q4_K_M.gguf) or a quantisation (Q4_K_M). Without it: the safetensors folder, else the only GGUF file",
        };
        Command command = new("pull", "Download a model from the hub. HF_TOKEN opens gated ones, HF_ENDPOINT is another hub's address, SLUICE_CACHE another folder.") { model };
        command.SetAction(async (parsed, cancellation) =>
        {
            string name = parsed.GetValue(model)!;
            System.Console.Out.WriteLine(await PullAsync(name.StartsWith(Prefix, StringComparison.Ordinal) ? name[Prefix.Length..] : name, cancellation));
            return 0;
        });
        return command;
    }

    /// <summary>Brings a model, with a progress bar on standard error; returns its path.</summary>
    public static async Task<string> PullAsync(string reference, CancellationToken cancellation)
    {
        using HubClient hub = new();
        HubReference parsed = HubReference.Parse(reference);
        return await Terminal.WithProgressAsync<string, HubProgress>("downloading", p => (p.Bytes, p.Total), progress => hub.PullAsync(parsed, progress, cancellation));
    }
}
