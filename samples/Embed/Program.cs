using Sluice;

// Loads a model, and prints its answer as it comes.
using Model model = await Model.LoadAsync(args[0]);
Console.WriteLine($"{model.Config.Name} on {model.DeviceInfo.Name}");
Console.Write("Once upon a time");
SamplingParameters parameters = new() { MaxTokens = 40, Temperature = 0.8f, Seed = 1 };
await foreach (GeneratedToken token in model.GenerateAsync("Once upon a time", parameters))
{
    Console.Write(token.Text);
}

Console.WriteLine();
