using Sluice.Tokenization;

namespace Sluice.Decoding;

/// <summary>
/// A conversation as token ids: the marks around each message are the vocabulary's own special tokens, and what a person
/// or the model says is text and never a mark. A vocabulary without such marks gets the messages as plain text, one after another.
/// </summary>
public sealed class ChatPrompt
{
    private readonly Tokenizer _tokenizer;
    private readonly string? _system;
    private readonly List<int> _ids = [];
    private readonly string _beforeRole, _afterRole, _end;
    private int _before;

    /// <param name="tokenizer">The model's.</param>
    /// <param name="system">What the model is told first; null: nothing.</param>
    public ChatPrompt(Tokenizer tokenizer, string? system)
    {
        (_tokenizer, _system) = (tokenizer, system);
        (Format, _beforeRole, _afterRole, _end) =
            Has("<|im_start|>", "<|im_end|>") ? ("ChatML", "<|im_start|>", "\n", "<|im_end|>\n")
            : Has("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>") ? ("Llama 3", "<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>")
            : ("plain text", "", "", "");
        Reset();

        bool Has(params string[] marks) => marks.All(m => tokenizer.Find(m) is not null);
    }

    /// <summary>The format's name.</summary>
    public string Format { get; }

    private bool IsPlain => _beforeRole.Length == 0;

    /// <summary>Forgets all but the system message.</summary>
    public void Reset()
    {
        _ids.Clear();
        if (_tokenizer.AddsBos && _tokenizer.BosId is { } bos)
        {
            _ids.Add(bos);
        }

        if (_system is { } text)
        {
            Say("system", text);
        }

        _before = _ids.Count;
    }

    /// <summary>Adds what the person says; returns the whole prompt, up to where the model's answer begins.</summary>
    public int[] Ask(string text)
    {
        _before = _ids.Count;
        Say("user", text);
        Mark(IsPlain ? "" : _beforeRole + "assistant" + _afterRole);
        return [.. _ids];
    }

    /// <summary>Adds the model's answer, without the token that ended it.</summary>
    public void Answered(ReadOnlySpan<int> ids)
    {
        foreach (int id in ids)
        {
            _ids.Add(id);
        }

        Mark(_end);
    }

    /// <summary>Takes the last question back.</summary>
    public void TakeBack() => _ids.RemoveRange(_before, _ids.Count - _before);

    private void Say(string role, string text)
    {
        Mark(IsPlain ? "" : _beforeRole + role + _afterRole);
        _ids.AddRange(_tokenizer.Encode(text, addSpecial: false, parseSpecial: false));
        Mark(_end);
    }

    private void Mark(string text)
    {
        if (text.Length > 0)
        {
            _ids.AddRange(_tokenizer.Encode(text, addSpecial: false, parseSpecial: true));
        }
    }
}
