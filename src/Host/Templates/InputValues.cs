using System.Text.Json;

namespace Sluice.Templates;

/// <summary>Turns a render's input into values: all of it data but the tokens.</summary>
internal static class InputValues
{
    private const int MostDepth = 100;

    public static Scope Scope(Runtime rt, ChatTemplateInput input)
    {
        Scope scope = new(null);
        scope.Set("messages", input.MessagesJson is { } json ? Convert(rt, "messages", json) : new ListValue([.. input.Messages.Select(m => Message(rt, m))]));
        scope.Set("tools", input.Tools is { } tools ? Convert(rt, "tools", tools) : NoneValue.Instance);
        scope.Set("documents", input.Documents is { } documents ? Convert(rt, "documents", documents) : NoneValue.Instance);
        scope.Set("add_generation_prompt", BoolValue.Of(input.AddGenerationPrompt));
        foreach ((string name, string text) in input.Tokens ?? new Dictionary<string, string>())
        {
            scope.Set(name, Text.Trusted(text));
        }

        if (input.BosToken is not null)
        {
            scope.Set("bos_token", Text.Trusted(input.BosToken));
        }

        if (input.EosToken is not null)
        {
            scope.Set("eos_token", Text.Trusted(input.EosToken));
        }

        foreach ((string name, JsonElement value) in input.Variables ?? new Dictionary<string, JsonElement>())
        {
            scope.Set(name, Convert(rt, name, value));
        }

        return scope;
    }

    private static DictValue Message(Runtime rt, ChatMessage message)
    {
        DictValue dict = new(rt);
        dict.Set(Text.Trusted("role"), Text.Data(message.Role));
        dict.Set(Text.Trusted("content"), message.Content is null ? NoneValue.OfData : Text.Data(message.Content));
        if (message.Fields is { } fields)
        {
            Value more = Convert(rt, "messages", fields);
            foreach ((Value key, Value value) in (more as DictValue ?? throw Wrong("messages", "the further fields of a message must be a JSON object")).Entries)
            {
                dict.Set(key, value);
            }
        }

        return dict;
    }

    private static Value Convert(Runtime rt, string what, JsonElement element)
    {
        try
        {
            return Convert(rt, what, element, 0);
        }
        catch (InvalidOperationException e)
        {
            throw Wrong(what, "holds text that is not valid Unicode", e);
        }
    }

    private static Value Convert(Runtime rt, string what, JsonElement element, int depth)
    {
        if (depth > MostDepth)
        {
            throw Wrong(what, $"nests deeper than {MostDepth}");
        }

        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                DictValue dict = new(rt);
                foreach (JsonProperty property in element.EnumerateObject())
                {
                    dict.Set(Text.Data(property.Name), Convert(rt, what, property.Value, depth + 1));
                }

                return dict;
            case JsonValueKind.Array:
                List<Value> items = new(element.GetArrayLength());
                foreach (JsonElement item in element.EnumerateArray())
                {
                    items.Add(Convert(rt, what, item, depth + 1));
                }

                return new ListValue(items);
            case JsonValueKind.String:
                return Text.Data(element.GetString()!);
            case JsonValueKind.Number:
                string raw = element.GetRawText();
                return raw.AsSpan().IndexOfAny(".eE") >= 0 ? new FloatValue(element.GetDouble(), true) : Numbers.ParseInteger(raw, true);
            case JsonValueKind.True or JsonValueKind.False:
                return BoolValue.OfData(element.ValueKind == JsonValueKind.True);
            case JsonValueKind.Null:
                return NoneValue.OfData;
            default:
                throw Wrong(what, "holds a JSON element that has no value");
        }
    }

    private static ChatTemplateException Wrong(string what, string detail, Exception? inner = null) => new(ChatTemplateError.Input, what, 0, 0, detail, inner);
}
