using System.CommandLine;
using System.Text.Json;
using Sluice.Decoding;
using Sluice.Models;
using Sluice.Templates;
using Sluice.Tokenization;

namespace Sluice.Console;

/// <summary>sluice render MODEL --messages FILE: the prompt that a model's chat template makes of a conversation.</summary>
internal static class RenderCommand
{
    public static Command Create()
    {
        Argument<string> model = new("MODEL") { Description = ModelArguments.ModelText + ", or a .jinja file" };
        ChatArguments chat = new(required: true);
        Option<bool> json = new("--json") { Description = "Print one JSON object, with the ranges that came from messages and tools, and the token ids" };
        Command command = new("render", "Show the prompt that a chat template makes of a conversation.") { model, json };
        chat.AddTo(command);
        command.SetAction(async (parsed, cancellation) =>
        {
            string path = parsed.GetValue(model)!;
            ChatTemplateInput input = chat.Read(parsed)!;
            RenderedChat rendered;
            int[]? ids = null;
            if (path.EndsWith(".jinja", StringComparison.OrdinalIgnoreCase))
            {
                rendered = ChatTemplate.Parse(File.ReadAllText(path), path).Render(input);
            }
            else
            {
                using ModelSource source = ModelSource.Open(await ModelArguments.ResolveAsync(path, cancellation));
                Tokenizer tokenizer = source.ReadTokenizer();
                ChatTemplate template = ChatTemplate.Parse(source.ReadChatTemplate() ?? throw new InvalidOperationException($"{path} holds no chat template"), path);
                rendered = ChatPrompt.Render(tokenizer, template, input);
                ids = tokenizer.Encode(rendered.Text, [.. rendered.Data.Select(r => r.Start..r.End)]);
            }

            System.Console.Out.Write(!parsed.GetValue(json) ? rendered.Text
                : JsonSerializer.Serialize(new RenderOutput(rendered.Text, [.. rendered.Data.Select(r => new[] { r.Start, r.End })], ids), JsonOutput.Lines.RenderOutput) + "\n");
            return 0;
        });
        return command;
    }
}

/// <summary>A conversation in files: the same in every verb that takes one.</summary>
internal sealed class ChatArguments(bool required)
{
    private readonly Option<string?> _messages = new("--messages") { Description = "A JSON file: a list of messages with role and content, as chat APIs have it", Required = required };
    private readonly Option<string?> _tools = new("--tools") { Description = "A JSON file: a list of tools' schemas" };
    private readonly Option<bool> _open = new("--no-generation-prompt") { Description = "End behind the last message, not where an answer begins" };

    public void AddTo(Command command)
    {
        command.Options.Add(_messages);
        command.Options.Add(_tools);
        command.Options.Add(_open);
    }

    public bool IsAbsent(System.CommandLine.Parsing.CommandResult result) => !result.Has(_messages);

    /// <summary>The conversation, or null where none is given.</summary>
    public ChatTemplateInput? Read(ParseResult parsed) => parsed.GetValue(_messages) is not { } messages ? null
        : ChatTemplateInput.FromJson(File.ReadAllText(messages), parsed.GetValue(_tools) is { } tools ? File.ReadAllText(tools) : null) with { AddGenerationPrompt = !parsed.GetValue(_open) };
}
