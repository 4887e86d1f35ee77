using System.Text;

namespace Sluice.Decoding;

/// <summary>Lets text through as soon as it cannot become a stop text any more.</summary>
internal sealed class StopMatcher(IReadOnlyList<string> stops)
{
    private readonly StringBuilder _held = new();
    private readonly int _longest = stops.Count == 0 ? 0 : stops.Max(s => s.Length);

    /// <summary>Adds text; returns what is certain by now. After a stop text was found, the text before it, and <paramref name="stopped"/> is true.</summary>
    public string Append(string text, out bool stopped)
    {
        stopped = false;
        if (_longest == 0)
        {
            return text;
        }

        _held.Append(text);
        string held = _held.ToString();
        int found = -1;
        foreach (string stop in stops)
        {
            int at = held.IndexOf(stop, StringComparison.Ordinal);
            if (at >= 0 && (found < 0 || at < found))
            {
                found = at;
            }
        }

        if (found >= 0)
        {
            stopped = true;
            _held.Clear();
            return held[..found];
        }

        int certain = held.Length;
        for (int start = Math.Max(0, held.Length - _longest + 1); start < held.Length; start++)
        {
            if (stops.Any(s => s.AsSpan().StartsWith(held.AsSpan(start), StringComparison.Ordinal)))
            {
                certain = start;
                break;
            }
        }

        _held.Remove(0, certain);
        return held[..certain];
    }

    /// <summary>What was held back: no more text comes.</summary>
    public string Flush()
    {
        string rest = _held.ToString();
        _held.Clear();
        return rest;
    }
}
