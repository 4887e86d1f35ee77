using System.Text.Json;

namespace Sluice.Templates;

/// <summary>One message of a conversation. What stands in it is data: never template, and never a control token.</summary>
/// <param name="Role">Who speaks: <c>system</c>, <c>user</c>, <c>assistant</c>, <c>tool</c>, or what else the template knows.</param>
/// <param name="Content">What is said; null where there is only a tool call.</param>
public sealed record ChatMessage(string Role, string? Content)
{
    /// <summary>Further keys as a JSON object, such as <c>tool_calls</c> or <c>reasoning_content</c>; a key that stands here wins.</summary>
    public JsonElement? Fields { get; init; }
}

/// <summary>How much a template may do before it is stopped with <see cref="ChatTemplateError.Limit"/>.</summary>
/// <param name="Steps">Evaluated nodes; work that depends on a text's or list's length counts in proportion.</param>
/// <param name="OutputChars">UTF-16 units of the output. Four times as many may be made on the way, in intermediate texts.</param>
public sealed record ChatTemplateLimits(long Steps = 5_000_000, int OutputChars = 8 << 20);

/// <summary>What a chat template is rendered from. All of it is data but the tokens, which are the tokenizer's own.</summary>
public sealed record ChatTemplateInput
{
    /// <summary>The conversation.</summary>
    public IReadOnlyList<ChatMessage> Messages { get; init; } = [];

    /// <summary>The conversation as a JSON array, key order kept; where set, <see cref="Messages"/> is not read.</summary>
    public JsonElement? MessagesJson { get; init; }

    /// <summary>The tools as a JSON array of schemas, key order kept; null: none.</summary>
    public JsonElement? Tools { get; init; }

    /// <summary>Documents for retrieval as a JSON array; null: none.</summary>
    public JsonElement? Documents { get; init; }

    /// <summary>Whether the prompt ends where the model's answer begins.</summary>
    public bool AddGenerationPrompt { get; init; }

    /// <summary>The text of the token that begins a sequence; null leaves the variable undefined. Trusted.</summary>
    public string? BosToken { get; init; }

    /// <summary>The text of the token that ends a sequence; null leaves the variable undefined. Trusted.</summary>
    public string? EosToken { get; init; }

    /// <summary>Texts of further tokens by variable name (<c>pad_token</c>, <c>unk_token</c>). Trusted.</summary>
    public IReadOnlyDictionary<string, string>? Tokens { get; init; }

    /// <summary>Further variables by name, such as <c>enable_thinking</c>; they win over all others.</summary>
    public IReadOnlyDictionary<string, JsonElement>? Variables { get; init; }

    /// <summary>The local time that <c>strftime_now</c> tells; null asks <see cref="Clock"/>.</summary>
    public DateTimeOffset? Now { get; init; }

    /// <summary>Where the time comes from when <see cref="Now"/> is null.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>How much the template may do.</summary>
    public ChatTemplateLimits Limits { get; init; } = new();

    /// <summary>An input whose messages, and tools if any, are JSON texts.</summary>
    /// <exception cref="ChatTemplateException">One of them is no JSON array.</exception>
    public static ChatTemplateInput FromJson(string messages, string? tools = null) =>
        new() { MessagesJson = ReadArray("messages", messages), Tools = tools is null ? null : ReadArray("tools", tools) };

    private static JsonElement ReadArray(string what, string json)
    {
        try
        {
            using JsonDocument document = JsonDocument.Parse(json);
            return document.RootElement.ValueKind == JsonValueKind.Array
                ? document.RootElement.Clone()
                : throw new ChatTemplateException(ChatTemplateError.Input, what, 0, 0, $"is JSON of kind {document.RootElement.ValueKind}, and an array is expected");
        }
        catch (JsonException e)
        {
            throw new ChatTemplateException(ChatTemplateError.Input, what, 0, 0, $"is not JSON: {e.Message}", e);
        }
    }
}

/// <summary>A part of a text, in UTF-16 units: from <paramref name="Start"/> up to, and without, <paramref name="End"/>.</summary>
public readonly record struct TextRange(int Start, int End);

/// <summary>A rendered prompt, and which of its characters came from data: no control token may be read in, or across the edge of, those.</summary>
/// <param name="Text">The prompt.</param>
/// <param name="Data">Ranges that came from messages, tools or variables: ascending, apart from each other, none empty.</param>
public sealed record RenderedChat(string Text, IReadOnlyList<TextRange> Data);
