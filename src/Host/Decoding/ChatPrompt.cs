using Sluice.Templates;
using Sluice.Tokenization;

namespace Sluice.Decoding;

/// <summary>
/// A conversation as token ids, written by the model's chat template. What a person or the model says is text and never a control token.
/// A model without a template gets the marks that its vocabulary has (ChatML, Llama 3), or else the messages as plain text.
/// </summary>
public sealed class ChatPrompt
{
    private readonly Tokenizer _tokenizer;
    private readonly ChatTemplate? _template;
    private readonly (string BeforeRole, string AfterRole, string End) _marks;
    private readonly List<ChatMessage> _messages = [];
    private readonly int _kept;

    /// <param name="tokenizer">The model's.</param>
    /// <param name="template">The model's, or null where it has none.</param>
    /// <param name="system">What the model is told first; null: nothing.</param>
    public ChatPrompt(Tokenizer tokenizer, ChatTemplate? template, string? system)
    {
        (_tokenizer, _template) = (tokenizer, template);
        (Format, _marks) =
            template is not null ? ("the model's template", default)
            : Has("<|im_start|>", "<|im_end|>") ? ("ChatML", ("<|im_start|>", "\n", "<|im_end|>\n"))
            : Has("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>") ? ("Llama 3", ("<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"))
            : ("plain text", ("", "", ""));
        if (system is not null)
        {
            _messages.Add(new ChatMessage("system", system));
        }

        _kept = _messages.Count;

        bool Has(params string[] marks) => marks.All(m => tokenizer.Find(m) is not null);
    }

    /// <summary>The format's name.</summary>
    public string Format { get; }

    /// <summary>The conversation so far.</summary>
    public IReadOnlyList<ChatMessage> Messages => _messages;

    /// <summary>Renders a conversation by a template and encodes it.</summary>
    /// <param name="tokenizer">The model's; its tokens that begin and end texts are put into the input.</param>
    /// <param name="template">The model's.</param>
    /// <param name="input">Messages, tools and the like.</param>
    /// <exception cref="ChatTemplateException">The template refuses the messages, or fails on them.</exception>
    public static int[] Encode(Tokenizer tokenizer, ChatTemplate template, ChatTemplateInput input)
    {
        RenderedChat chat = Render(tokenizer, template, input);
        return tokenizer.Encode(chat.Text, [.. chat.Data.Select(r => r.Start..r.End)]);
    }

    /// <summary>Renders a conversation by a template.</summary>
    /// <inheritdoc cref="Encode(Tokenizer, ChatTemplate, ChatTemplateInput)"/>
    public static RenderedChat Render(Tokenizer tokenizer, ChatTemplate template, ChatTemplateInput input)
    {
        string? Name(int? id) => id is { } known ? tokenizer.NameOf(known) : null;
        Dictionary<string, string> tokens = new(StringComparer.Ordinal);
        if (Name(tokenizer.UnknownId) is { } unknown)
        {
            tokens["unk_token"] = unknown;
        }

        return template.Render(input with { BosToken = Name(tokenizer.BosId), EosToken = Name(tokenizer.EosId), Tokens = tokens });
    }

    /// <summary>Forgets all but the system message.</summary>
    public void Reset() => _messages.RemoveRange(_kept, _messages.Count - _kept);

    /// <summary>Adds what the person says; returns the whole prompt, up to where the model's answer begins.</summary>
    /// <exception cref="ChatTemplateException">The template refuses the conversation; the question is not kept.</exception>
    public int[] Ask(string text)
    {
        _messages.Add(new ChatMessage("user", text));
        try
        {
            return Encode(new ChatTemplateInput { Messages = [.. _messages], AddGenerationPrompt = true });
        }
        catch (ChatTemplateException)
        {
            TakeBack();
            throw;
        }
    }

    /// <summary>Adds the model's answer.</summary>
    public void Answered(string text) => _messages.Add(new ChatMessage("assistant", text));

    /// <summary>Takes the last question back.</summary>
    public void TakeBack() => _messages.RemoveAt(_messages.Count - 1);

    /// <summary>A conversation that is not this one's, in the same format.</summary>
    /// <exception cref="ChatTemplateException">The template refuses the messages, or fails on them.</exception>
    internal int[] Encode(ChatTemplateInput input) => _template is null ? Marked(input) : Encode(_tokenizer, _template, input);

    private int[] Marked(ChatTemplateInput input)
    {
        List<int> ids = [];
        if (_tokenizer.AddsBos && _tokenizer.BosId is { } bos)
        {
            ids.Add(bos);
        }

        foreach (ChatMessage message in input.Messages)
        {
            Begin(message.Role);
            ids.AddRange(_tokenizer.Encode(message.Content!, addSpecial: false, parseSpecial: false));
            Mark(_marks.End);
        }

        if (input.AddGenerationPrompt)
        {
            Begin("assistant");
        }

        return [.. ids];

        void Begin(string role) => Mark(_marks.BeforeRole.Length == 0 ? "" : _marks.BeforeRole + role + _marks.AfterRole);

        void Mark(string text)
        {
            if (text.Length > 0)
            {
                ids.AddRange(_tokenizer.Encode(text, addSpecial: false, parseSpecial: true));
            }
        }
    }
}
