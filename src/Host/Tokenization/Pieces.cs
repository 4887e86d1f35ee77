namespace Sluice.Tokenization;

/// <summary>A text and the pieces of it that are left, in order. What steps take away lies between pieces.</summary>
internal sealed class Pieces
{
    private ByteBuffer _text = new();
    private ByteBuffer _other = new();
    private List<(int Start, int End)> _spans = [];
    private List<(int Start, int End)> _otherSpans = [];

    public ReadOnlySpan<byte> Text => _text.Span;

    public List<(int Start, int End)> Spans => _spans;

    /// <summary>True where the first piece begins the whole text that is encoded.</summary>
    public bool AtStart { get; private set; }

    /// <summary>Room for steps that remember matches.</summary>
    public List<(int Start, int End, bool Matched)> Matches { get; } = [];

    /// <summary>Begins with one piece.</summary>
    public void Reset(ReadOnlySpan<byte> text, bool atStart)
    {
        _text.Clear();
        _text.Add(text);
        _spans.Clear();
        _spans.Add((0, text.Length));
        AtStart = atStart;
        if (_spans.Capacity > 1 << 20)
        {
            (_spans, _otherSpans) = ([(0, text.Length)], []);
            Matches.Capacity = 0;
        }
    }

    /// <summary>Begins new pieces of the same text; <see cref="Keep"/> adds them and <see cref="EndCut"/> ends.</summary>
    public List<(int Start, int End)> BeginCut()
    {
        _otherSpans.Clear();
        return _spans;
    }

    public void Keep(int start, int end)
    {
        if (end > start)
        {
            _otherSpans.Add((start, end));
        }
    }

    public void EndCut() => (_spans, _otherSpans) = (_otherSpans, _spans);

    /// <summary>Begins a new text; a step writes each piece to the buffer that this gives, and calls <see cref="Wrote"/> after each.</summary>
    public ByteBuffer BeginRewrite()
    {
        _otherSpans.Clear();
        _other.Clear();
        return _other;
    }

    /// <summary>A piece from <paramref name="start"/> to the end of the new text is there.</summary>
    public void Wrote(int start) => Keep(start, _other.Length);

    public void EndRewrite()
    {
        (_text, _other) = (_other, _text);
        EndCut();
    }
}
