namespace Sluice.Templates;

/// <summary>Python's <c>split</c>, <c>rsplit</c> and <c>splitlines</c>: the parts keep their marks.</summary>
internal static class Splitting
{
    public static ListValue Split(Runtime rt, Text s, Arguments arguments, bool fromEnd)
    {
        Value?[] given = arguments.Bind(rt, fromEnd ? "rsplit" : "split", "sep", "maxsplit");
        long most = given[1] is { } m ? rt.IntOf(m, "a count") : -1;
        most = most < 0 ? long.MaxValue : most;
        rt.Chars(s.S.Length);
        List<Value> parts;
        if (given[0] is null or NoneValue)
        {
            parts = fromEnd ? WordsFromEnd(rt, s, most) : Words(rt, s, most);
        }
        else
        {
            string between = rt.TextOf(given[0]!, "a separator").S;
            parts = between.Length == 0 ? throw rt.Fail("a separator cannot be empty") : fromEnd ? PartsFromEnd(rt, s, between, most) : Parts(rt, s, between, most);
        }

        return new ListValue(parts);
    }

    public static IEnumerable<Text> Lines(Runtime rt, Text s, bool keepEnds)
    {
        rt.Chars(s.S.Length);
        for (int at = 0; at < s.S.Length;)
        {
            rt.Step();
            int end = at;
            while (end < s.S.Length && !PythonText.IsLineBreak(s.S[end]))
            {
                end++;
            }

            int next = end == s.S.Length ? end : end + (s.S[end] == '\r' && end + 1 < s.S.Length && s.S[end + 1] == '\n' ? 2 : 1);
            yield return s.Cut(at, (keepEnds ? next : end) - at);
            at = next;
        }
    }

    private static List<Value> Parts(Runtime rt, Text s, string between, long most)
    {
        List<Value> parts = [];
        int at = 0;
        for (; most > 0; most--)
        {
            int found = PythonText.IndexOf(rt, s.S, between, at, s.S.Length);
            if (found < 0)
            {
                break;
            }

            parts.Add(s.Cut(at, found - at));
            at = found + between.Length;
        }

        parts.Add(s.Cut(at, s.S.Length - at));
        return parts;
    }

    private static List<Value> PartsFromEnd(Runtime rt, Text s, string between, long most)
    {
        List<Value> parts = [];
        int end = s.S.Length;
        for (; most > 0 && end >= between.Length; most--)
        {
            int found = PythonText.LastIndexOf(rt, s.S, between, 0, end);
            if (found < 0)
            {
                break;
            }

            parts.Add(s.Cut(found + between.Length, end - found - between.Length));
            end = found;
        }

        parts.Add(s.Cut(0, end));
        parts.Reverse();
        return parts;
    }

    private static List<Value> Words(Runtime rt, Text s, long most)
    {
        List<Value> words = [];
        int at = 0;
        while (true)
        {
            while (at < s.S.Length && PythonText.IsSpace(s.S[at]))
            {
                at++;
            }

            if (at == s.S.Length)
            {
                return words;
            }

            rt.Step();
            int end = most-- <= 0 ? s.S.Length : at;
            while (end < s.S.Length && most >= 0 && !PythonText.IsSpace(s.S[end]))
            {
                end++;
            }

            words.Add(s.Cut(at, end - at));
            if (most < 0)
            {
                return words;
            }

            at = end;
        }
    }

    private static List<Value> WordsFromEnd(Runtime rt, Text s, long most)
    {
        List<Value> words = [];
        int end = s.S.Length;
        while (true)
        {
            while (end > 0 && PythonText.IsSpace(s.S[end - 1]))
            {
                end--;
            }

            if (end == 0)
            {
                break;
            }

            rt.Step();
            int start = end;
            if (most-- <= 0)
            {
                start = 0;
            }

            while (start > 0 && most >= 0 && !PythonText.IsSpace(s.S[start - 1]))
            {
                start--;
            }

            words.Add(s.Cut(start, end - start));
            if (most < 0)
            {
                break;
            }

            end = start;
        }

        words.Reverse();
        return words;
    }
}
