using System.Text;
using Sluice.Interop;

namespace Sluice.Decoding;

/// <summary>What a model, and a baseline beside it, made of a skill's items.</summary>
/// <param name="Skill">The skill; empty for all of them.</param>
/// <param name="Items">Items in all.</param>
/// <param name="TooLong">Of these, such as do not fit in the context: they count as wrong, and their replies are not scored.</param>
/// <param name="Right">Items whose generated reply matches the reference.</param>
/// <param name="Score">How well the reference replies were predicted.</param>
/// <param name="BaselineRight">Items that the baseline's reply matches; null: there is none.</param>
/// <param name="Divergence">How far the predictions of the reference replies are from the baseline's; null: there is none.</param>
public sealed record SkillResult(string Skill, int Items, int TooLong, int Right, TextScore Score, int? BaselineRight, Divergence? Divergence)
{
    /// <summary>The fraction of items whose reply is right.</summary>
    public double ExactMatch => (double)Right / Items;

    /// <summary>The baseline's fraction, or null.</summary>
    public double? BaselineExactMatch => (double?)BaselineRight / Items;

    /// <summary>The 95% confidence interval of <see cref="ExactMatch"/>.</summary>
    public (double Low, double High) Interval => Wilson(Right, Items);

    /// <summary>The 95% score interval of a fraction (Wilson 1927): it stays within 0 and 1, and is sensible for few items.</summary>
    public static (double Low, double High) Wilson(int right, int items)
    {
        const double Z = 1.959963984540054;
        double p = (double)right / items, scale = 1 + (Z * Z / items);
        double middle = (p + (Z * Z / (2.0 * items))) / scale;
        double half = Z / scale * Math.Sqrt((p * (1 - p) / items) + (Z * Z / (4.0 * items * items)));
        return (right == 0 ? 0 : middle - half, right == items ? 1 : middle + half);
    }
}

/// <summary>A reply that does not match.</summary>
/// <param name="Item">The item.</param>
/// <param name="Got">What the model said; null where the item does not fit in the context.</param>
public sealed record WrongReply(HeldOutItem Item, string? Got);

/// <summary>What an evaluation over a held-out set found.</summary>
/// <param name="Skills">By skill, in the set's order.</param>
/// <param name="Total">Over all items.</param>
/// <param name="Wrong">The model's wrong replies, in the set's order.</param>
/// <param name="Prompts">What wrote the prompts: the model's template, or the marks that stand in for one.</param>
/// <param name="EndsScored">Items whose end-of-turn token was scored with the reply.</param>
public sealed record SkillReport(IReadOnlyList<SkillResult> Skills, SkillResult Total, IReadOnlyList<WrongReply> Wrong, string Prompts, int EndsScored);

/// <summary>
/// Measures a model on a held-out set: exact match of the replies that it generates, perplexity of the reference replies, and, beside a baseline, the
/// divergence at the same positions. <see cref="Convention"/> says how.
/// </summary>
public static class SkillEvaluation
{
    private const int LeastTokens = 32, RowsAtOnce = 64;

    /// <summary>How the numbers are made, in words.</summary>
    public const string Convention =
        "exact match: greedy replies, stopped at the model's end or at max(32, 2 x the reference's tokens); perplexity and KL: over the reference reply's tokens given its prompt, "
        + "with the end-of-turn token where the template writes one; each item is a window of its own, from its first token: nothing slides, nothing is carried over; "
        + "an item that exceeds the context is wrong and not scored; intervals are Wilson's, 95%";

    /// <summary>Runs all items, one after the other.</summary>
    /// <param name="model">The model.</param>
    /// <param name="baseline">Another with the same vocabulary, or null; it is given the model's token ids.</param>
    /// <param name="set">The items.</param>
    /// <param name="progress">Told how many items are done.</param>
    /// <param name="cancellationToken">Looked at between steps.</param>
    /// <exception cref="ArgumentException">The set is empty, or the vocabularies are not the same.</exception>
    /// <exception cref="SluiceModelException">The model's template does not take an item's messages.</exception>
    /// <exception cref="SluiceException">The device failed.</exception>
    public static Task<SkillReport> RunAsync(Model model, Model? baseline, HeldOutSet set, IProgress<int>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(model);
        ArgumentNullException.ThrowIfNull(set);
        if (set.Items.Count == 0)
        {
            throw new ArgumentException($"{set.Name} has no items");
        }

        if (baseline is not null)
        {
            Evaluation.RequireSameVocabulary(model, baseline);
        }

        return Task.Run(() => RunOnPoolAsync(model, baseline, set, progress, cancellationToken), cancellationToken);
    }

    private static async Task<SkillReport> RunOnPoolAsync(Model model, Model? baseline, HeldOutSet set, IProgress<int>? progress, CancellationToken cancellation)
    {
        ChatPrompt format = new(model.Tokenizer, model.ChatTemplate, null);
        using Session own = model.CreateSession();
        using Session? other = baseline?.CreateSession();
        int vocabulary = model.Config.VocabularySize, context = Math.Min(own.ContextLength, other?.ContextLength ?? int.MaxValue), done = 0, ends = 0;
        Dictionary<string, Tally> tallies = set.Skills.ToDictionary(s => s, _ => new Tally(vocabulary), StringComparer.Ordinal);
        Tally total = new(vocabulary);
        List<WrongReply> wrong = [];
        foreach (HeldOutItem item in set.Items)
        {
            EncodedItem encoded = EncodedItem.Of(model.Tokenizer, format, item, set.Name);
            Tally[] both = [tallies[item.Skill], total];
            bool fits = encoded.Tokens.Length <= context, right = false, otherRight = false;
            string? reply = null;
            if (fits)
            {
                Score(own, other, encoded, both, cancellation);
                ends += encoded.HasEnd ? 1 : 0;
                reply = await ReplyAsync(own, encoded, context, cancellation).ConfigureAwait(false);
                right = item.IsRight(reply);
                otherRight = other is not null && item.IsRight(await ReplyAsync(other, encoded, context, cancellation).ConfigureAwait(false));
            }

            Array.ForEach(both, t => t.Count(fits, right, otherRight));
            if (!right)
            {
                wrong.Add(new WrongReply(item, reply));
            }

            progress?.Report(++done);
        }

        bool compared = other is not null;
        return new SkillReport([.. tallies.Select(t => t.Value.ToResult(t.Key, compared))], total.ToResult("", compared), wrong, format.Format, ends);
    }

    // Both are walked through the same ids, a piece at a time: memory for two pieces of logits.
    private static void Score(Session own, Session? other, EncodedItem item, Tally[] tallies, CancellationToken cancellation)
    {
        own.Forget();
        other?.Forget();
        for (int from = item.PromptLength - 1; from + 1 < item.Tokens.Length; from += RowsAtOnce)
        {
            int count = Math.Min(RowsAtOnce, item.Tokens.Length - 1 - from);
            float[] logits = own.Logits(item.Tokens, from, count, cancellation);
            float[]? against = other?.Logits(item.Tokens, from, count, cancellation);
            foreach (PositionDivergence position in PositionDivergence.OfRows(logits, against, item.Tokens[(from + 1)..(from + 1 + count)], tallies[0].Vocabulary, cancellation))
            {
                Array.ForEach(tallies, t => t.Sums.Add(position));
            }
        }
    }

    private static async Task<string> ReplyAsync(Session session, EncodedItem item, int context, CancellationToken cancellation)
    {
        StringBuilder text = new();
        int most = Math.Min(Math.Max(LeastTokens, 2 * item.ReplyLength), context - item.PromptLength);
        await foreach (GeneratedToken token in session.GenerateAsync(item.Tokens.AsMemory(0, item.PromptLength), new SamplingParameters { MaxTokens = most }, cancellation).ConfigureAwait(false))
        {
            text.Append(token.Text);
        }

        return text.ToString();
    }

    private sealed class Tally(int vocabulary)
    {
        private int _items, _tooLong, _right, _otherRight;

        public int Vocabulary => vocabulary;

        public DivergenceSums Sums { get; } = new(vocabulary);

        public void Count(bool fits, bool right, bool otherRight)
        {
            _items++;
            _tooLong += fits ? 0 : 1;
            _right += right ? 1 : 0;
            _otherRight += otherRight ? 1 : 0;
        }

        public SkillResult ToResult(string skill, bool compared) => new(skill, _items, _tooLong, _right, Sums.Score, compared ? _otherRight : null, compared ? Sums.ToDivergence() : null);
    }
}
