using System.Text;

namespace Sluice.Tokenization;

/// <summary>One of the steps that cut a text into words. Safe from any thread.</summary>
internal abstract class PreTokenizerStep
{
    public abstract void Apply(Pieces pieces);
}

/// <summary>What becomes of what a split matches.</summary>
internal enum SplitBehavior
{
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

/// <summary>Cuts at what a rule matches.</summary>
internal sealed class SplitStep(WordRule rule, SplitBehavior behavior, bool invert = false) : PreTokenizerStep
{
    /// <summary>The rule, where this step only isolates its matches; else null.</summary>
    public WordRule? Isolates => behavior == SplitBehavior.Isolated ? rule : null;

    public override void Apply(Pieces pieces)
    {
        ReadOnlySpan<byte> text = pieces.Text;
        List<(int Start, int End, bool Matched)> matches = pieces.Matches;
        foreach ((int start, int end) in pieces.BeginCut())
        {
            matches.Clear();
            Find(text[start..end], start, matches);
            Combine(pieces, matches);
        }

        pieces.EndCut();
    }

    /// <summary>A rule that takes code points one by one.</summary>
    public static WordRule OneBy(Func<int, bool> isMember) => (text, position) => isMember(CharClass.CodePointAt(text, position, out int length)) ? length : -length;

    /// <summary>A rule that takes a text.</summary>
    public static WordRule Literal(byte[] wanted) => (text, position) =>
    {
        int next = text[position..].IndexOf(wanted);
        return next == 0 ? wanted.Length : next < 0 ? position - text.Length : -next;
    };

    private void Find(ReadOnlySpan<byte> text, int offset, List<(int Start, int End, bool Matched)> matches)
    {
        int gap = 0;
        int position = 0;
        while (position < text.Length)
        {
            int matched = rule(text, position);
            if (matched < 0)
            {
                position -= matched;
                continue;
            }

            if (position > gap)
            {
                matches.Add((offset + gap, offset + position, invert));
            }

            matches.Add((offset + position, offset + position + matched, !invert));
            gap = position + matched;
            if (matched == 0)
            {
                CharClass.At(text, position, out matched);
            }

            position += matched;
        }

        if (text.Length > gap)
        {
            matches.Add((offset + gap, offset + text.Length, invert));
        }
    }

    private void Combine(Pieces pieces, List<(int Start, int End, bool Matched)> matches)
    {
        int start = -1;
        int end = -1;
        bool before = false;
        for (int i = 0; i < matches.Count; i++)
        {
            (int from, int to, bool matched) = matches[i];
            bool joins = behavior switch
            {
                SplitBehavior.Contiguous => start >= 0 && before == matched,
                SplitBehavior.MergedWithPrevious => start >= 0 && matched && !before,
                SplitBehavior.MergedWithNext => start >= 0 && before && !matched,
                _ => false,
            };
            if (!joins)
            {
                pieces.Keep(start, end);
                start = from;
            }

            end = to;
            before = matched;
            if (behavior == SplitBehavior.Removed && matched)
            {
                (start, end) = (-1, -1);
            }
        }

        pieces.Keep(start, end);
    }
}

/// <summary>GPT-2's: a blank put in front where asked, cut by its expression where asked, and bytes written as characters.</summary>
internal sealed class ByteLevelStep(bool prefixSpace, bool useExpression) : PreTokenizerStep
{
    private static readonly SplitStep Gpt2 = new(WordRules.Find(RegexTexts.Gpt2)!, SplitBehavior.Isolated);

    public bool PrefixSpace => prefixSpace;

    public bool UseExpression => useExpression;

    public override void Apply(Pieces pieces)
    {
        if (prefixSpace)
        {
            ReadOnlySpan<byte> text = pieces.Text;
            ByteBuffer output = pieces.BeginRewrite();
            foreach ((int start, int end) in pieces.Spans)
            {
                int begin = output.Length;
                if (text[start] != ' ')
                {
                    output.Add((byte)' ');
                }

                output.Add(text[start..end]);
                pieces.Wrote(begin);
            }

            pieces.EndRewrite();
        }

        if (useExpression)
        {
            Gpt2.Apply(pieces);
        }

        ReadOnlySpan<byte> bytes = pieces.Text;
        ByteBuffer mapped = pieces.BeginRewrite();
        foreach ((int start, int end) in pieces.Spans)
        {
            int begin = mapped.Length;
            foreach (byte value in bytes[start..end])
            {
                mapped.AddCodePoint(ByteAlphabet.CharacterOf(value).Value);
            }

            pieces.Wrote(begin);
        }

        pieces.EndRewrite();
    }
}

/// <summary>When <see cref="MetaspaceStep"/> puts a mark in front.</summary>
internal enum PrependScheme
{
    Always,
    First,
    Never,
}

/// <summary>SentencePiece's: blanks become marks, one is put in front where asked, and pieces begin at marks where asked.</summary>
internal sealed class MetaspaceStep(Rune mark, PrependScheme scheme, bool split) : PreTokenizerStep
{
    private readonly byte[] _mark = Encoding.UTF8.GetBytes(mark.ToString());

    public bool Prepends => scheme != PrependScheme.Never;

    public override void Apply(Pieces pieces)
    {
        ReadOnlySpan<byte> text = pieces.Text;
        ByteBuffer output = pieces.BeginRewrite();
        bool first = pieces.AtStart;
        foreach ((int start, int end) in pieces.Spans)
        {
            ReadOnlySpan<byte> piece = text[start..end];
            int begin = output.Length;
            if ((scheme == PrependScheme.Always || (scheme == PrependScheme.First && first && start == 0)) && piece[0] != ' ' && !piece.StartsWith(_mark))
            {
                output.Add(_mark);
            }

            while (!piece.IsEmpty)
            {
                int blank = piece.IndexOf((byte)' ');
                output.Add(blank < 0 ? piece : piece[..blank]);
                if (blank < 0)
                {
                    break;
                }

                output.Add(_mark);
                piece = piece[(blank + 1)..];
            }

            pieces.Wrote(begin);
        }

        pieces.EndRewrite();
        if (split)
        {
            new SplitStep(SplitStep.Literal(_mark), SplitBehavior.MergedWithNext).Apply(pieces);
        }
    }
}

/// <summary>Cuts between scripts; kana and Han are one, and what has no script of its own joins what stands before it.</summary>
internal sealed class UnicodeScriptsStep : PreTokenizerStep
{
    private static readonly int Han = UnicodeScripts.Find("Han");
    private static readonly int Hiragana = UnicodeScripts.Find("Hiragana");
    private static readonly int Katakana = UnicodeScripts.Find("Katakana");

    private const int Any = -2;

    public override void Apply(Pieces pieces)
    {
        ReadOnlySpan<byte> text = pieces.Text;
        foreach ((int start, int end) in pieces.BeginCut())
        {
            int last = Any;
            int begin = -1; // what has no script at the start is dropped, as the reference does
            for (int at = start; at < end;)
            {
                int script = ScriptOf(CharClass.CodePointAt(text, at, out int length));
                if (script != Any && last != script)
                {
                    pieces.Keep(begin, begin < 0 ? begin : at);
                    begin = at;
                }

                last = script == Any ? last : script;
                at += length;
            }

            pieces.Keep(begin, begin < 0 ? begin : end);
        }

        pieces.EndCut();
    }

    private static int ScriptOf(int codePoint)
    {
        if (codePoint is ' ' or 0x30FC)
        {
            return codePoint == ' ' ? Any : Han;
        }

        int script = UnicodeScripts.Of(codePoint);
        return script == Hiragana || script == Katakana ? Han : script < 0 ? Any : script;
    }
}
