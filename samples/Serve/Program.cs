using System.Runtime.CompilerServices;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.HttpResults;
using Sluice;

// Serves one model to many clients: Serve MODEL [--urls http://127.0.0.1:8080]
WebApplicationBuilder builder = WebApplication.CreateSlimBuilder(args);
builder.Services.ConfigureHttpJsonOptions(o =>
{
    JsonSerializerOptions json = o.SerializerOptions;
    json.TypeInfoResolverChain.Insert(0, ServeJson.Default);
    json.PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower;
    json.RespectNullableAnnotations = json.RespectRequiredConstructorParameters = true;
});

// The host disposes what it made in reverse order: the engine before its model.
Model loaded = await Model.LoadAsync(args[0]);
builder.Services.AddSingleton(_ => loaded);
builder.Services.AddSingleton(services => services.GetRequiredService<Model>().CreateEngine());

WebApplication app = builder.Build();
app.Services.GetRequiredService<Engine>(); // the cache is there before the first client is
app.MapPost("/generate", Serving.Generate);
app.MapGet("/stats", (Engine engine) => engine.Statistics);
await app.RunAsync();

internal static class Serving
{
    public static Results<ServerSentEventsResult<TokenEvent>, BadRequest<Refusal>> Generate(GenerateRequest request, Engine engine, HttpContext context)
    {
        SamplingParameters parameters = new() { MaxTokens = request.MaxTokens, Temperature = request.Temperature, Seed = request.Seed, Stop = request.Stop ?? [] };
        try
        {
            // What can never run is refused here; the rest begins when it is read, and ends when its client leaves.
            IAsyncEnumerable<GeneratedToken> tokens = engine.GenerateAsync(request.Prompt, parameters, cancellationToken: context.RequestAborted);
            return TypedResults.ServerSentEvents(Events(tokens));
        }
        catch (ArgumentException e)
        {
            return TypedResults.BadRequest(new Refusal(e.Message));
        }
    }

    private static async IAsyncEnumerable<TokenEvent> Events(IAsyncEnumerable<GeneratedToken> tokens, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        await foreach (GeneratedToken token in tokens.WithCancellation(cancellation))
        {
            yield return new TokenEvent(token.Id, token.Text, token.Finish);
        }
    }
}

internal sealed record GenerateRequest(string Prompt, int? MaxTokens = null, float Temperature = 0, ulong? Seed = null, string[]? Stop = null);

internal sealed record TokenEvent(int Id, string Text, FinishReason? Finish);

internal sealed record Refusal(string Error);

[JsonSourceGenerationOptions(UseStringEnumConverter = true)]
[JsonSerializable(typeof(GenerateRequest))]
[JsonSerializable(typeof(TokenEvent))]
[JsonSerializable(typeof(Refusal))]
[JsonSerializable(typeof(EngineStatistics))]
internal sealed partial class ServeJson : JsonSerializerContext;
