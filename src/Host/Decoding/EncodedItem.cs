using Sluice.Templates;

namespace Sluice.Decoding;

/// <summary>An item as a model reads it: the prompt's ids, and behind them the reference reply's, which are scored.</summary>
/// <param name="Tokens">All of them.</param>
/// <param name="PromptLength">How many are the prompt's, up to where the answer begins.</param>
/// <param name="ReplyLength">Tokens of the reference reply's text alone.</param>
/// <param name="HasEnd">Whether the last token ends the model's turn.</param>
internal sealed record EncodedItem(int[] Tokens, int PromptLength, int ReplyLength, bool HasEnd)
{
    // Templates that tell the date give the same prompt on any day.
    private static readonly DateTimeOffset Day = new(2024, 7, 26, 0, 0, 0, TimeSpan.Zero);

    /// <summary>
    /// Encodes an item. What is scored is what the rendered conversation has behind the prompt, up to and with the first token that ends a generation; where
    /// the prompt's ids do not begin the conversation's (the template rewrites the reply, or a token spans the edge), the reply's own ids and no end.
    /// </summary>
    /// <exception cref="ModelFormatException">The model's template does not take the messages, or nothing is left of them.</exception>
    public static EncodedItem Of(Tokenization.Tokenizer tokenizer, ChatPrompt format, HeldOutItem item, string set)
    {
        ChatTemplateInput input = new() { Messages = item.Messages, AddGenerationPrompt = true, Now = Day };
        int[] prompt;
        try
        {
            prompt = format.Encode(input);
        }
        catch (ChatTemplateException e)
        {
            throw new ModelFormatException(set, $"line {item.Line}.messages", $"cannot be written by the model's chat template ({e.Message}): leave the line out for this model", e);
        }

        int[] reply = tokenizer.Encode(item.Reply, addSpecial: false);
        if (prompt.Length == 0 || reply.Length == 0)
        {
            throw new ModelFormatException(set, $"line {item.Line}", $"the {(prompt.Length == 0 ? "prompt" : "reply")} has no tokens in this model's vocabulary: leave the line out for this model");
        }

        int[] whole;
        try
        {
            whole = format.Encode(input with { Messages = [.. item.Messages, new ChatMessage("assistant", item.Reply)], AddGenerationPrompt = false });
        }
        catch (ChatTemplateException)
        {
            whole = [];
        }

        if (whole.Length <= prompt.Length || !whole.AsSpan().StartsWith(prompt))
        {
            return new EncodedItem([.. prompt, .. reply], prompt.Length, reply.Length, HasEnd: false);
        }

        int end = Array.FindIndex(whole, prompt.Length, tokenizer.IsEndOfGeneration);
        return new EncodedItem(end < 0 ? whole : whole[..(end + 1)], prompt.Length, reply.Length, end >= 0);
    }
}
