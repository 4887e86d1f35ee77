using System.Text;

namespace Sluice.Tokenization;

/// <summary>
/// Parses the regular expressions that tokenizer files hold: the part of Oniguruma's (Ruby) syntax that matches code points. No captures
/// are kept and there are no back references.
/// </summary>
internal sealed class RegexParser
{
    private const int MostDepth = 64;
    private const int MostLength = 1 << 16;

    private readonly int[] _text;
    private int _at;
    private int _depth;
    private bool _ignoreCase;
    private bool _dotAll;

    private RegexParser(string pattern) => _text = [.. pattern.EnumerateRunes().Select(r => r.Value)];

    /// <summary>Parses an expression.</summary>
    /// <exception cref="FormatException">It is malformed, or uses what is not supported; the text tells what and where.</exception>
    public static RegexNode Parse(string pattern)
    {
        RegexParser parser = new(pattern.Length <= MostLength ? pattern : throw new FormatException($"is {pattern.Length:N0} characters long, and at most {MostLength:N0} are read"));
        RegexNode node = parser.Alternatives();
        return parser._at == parser._text.Length ? node : throw parser.Error("has a ')' too many");
    }

    private bool More => _at < _text.Length;

    private int Peek => _at < _text.Length ? _text[_at] : -1;

    private FormatException Error(string detail) => new($"{detail}, at character {_at:N0} of the expression");

    private bool Take(char c)
    {
        if (Peek != c)
        {
            return false;
        }

        _at++;
        return true;
    }

    private bool Take(string text)
    {
        for (int i = 0; i < text.Length; i++)
        {
            if (_at + i >= _text.Length || _text[_at + i] != text[i])
            {
                return false;
            }
        }

        _at += text.Length;
        return true;
    }

    private RegexNode Alternatives()
    {
        if (++_depth > MostDepth)
        {
            throw Error($"nests deeper than {MostDepth}");
        }

        (bool ignoreCase, bool dotAll) = (_ignoreCase, _dotAll);
        List<RegexNode> parts = [];
        do
        {
            parts.Add(Sequence());
        }
        while (Take('|'));
        (_ignoreCase, _dotAll) = (ignoreCase, dotAll);
        _depth--;
        return parts.Count == 1 ? parts[0] : new RegexNode.Choice(parts);
    }

    private RegexNode Sequence()
    {
        List<RegexNode> parts = [];
        while (More && Peek != '|' && Peek != ')')
        {
            RegexNode? atom = Atom();
            if (atom is not null)
            {
                parts.Add(Repeated(atom));
            }
        }

        return parts.Count == 1 ? parts[0] : new RegexNode.Sequence(parts);
    }

    private RegexNode Repeated(RegexNode node)
    {
        for (int times = 0; More; times++)
        {
            int least;
            int most;
            int start = _at;
            switch (Peek)
            {
                case '?':
                    (_at, least, most) = (_at + 1, 0, 1);
                    break;
                case '*':
                    (_at, least, most) = (_at + 1, 0, -1);
                    break;
                case '+':
                    (_at, least, most) = (_at + 1, 1, -1);
                    break;
                case '{' when Interval(out least, out most):
                    break;
                default:
                    return node;
            }

            if (times >= 8)
            {
                throw Error("repeats a repetition too often");
            }

            // Ruby: a '+' behind an interval repeats it, and is no possessive mark.
            bool interval = _text[start] == '{';
            bool lazy = Take('?');
            bool possessive = !lazy && !interval && Take('+');
            node = new RegexNode.Repeat(node, least, most, lazy);
            node = possessive ? new RegexNode.Atomic(node) : node;
        }

        return node;
    }

    // {n}, {n,}, {,m}, {n,m}; anything else is that text.
    private bool Interval(out int least, out int most)
    {
        int start = _at++;
        int digits = _at;
        least = Number() ?? 0;
        bool some = _at > digits;
        most = least;
        if (Take(','))
        {
            digits = _at;
            most = Number() ?? -1;
            some |= _at > digits;
        }

        if (!some || !Take('}'))
        {
            _at = start;
            return false;
        }

        return most < 0 || least <= most ? true : throw Error($"repeats at least {least} and at most {most} times");
    }

    private int? Number()
    {
        int start = _at;
        int value = 0;
        for (; Peek is >= '0' and <= '9'; _at++)
        {
            value = (value * 10) + (Peek - '0');
            if (value > 1_000)
            {
                throw Error("repeats more than 1,000 times");
            }
        }

        return _at > start ? value : null;
    }

    private RegexNode? Atom()
    {
        int c = _text[_at];
        switch (c)
        {
            case '(':
                return Group();
            case '[':
                return new RegexNode.One(Cased(Class()));
            case '.':
                _at++;
                return new RegexNode.One(_dotAll ? CodePointSet.Any : CodePointSet.NoNewline);
            case '^' or '$':
                _at++;
                return new RegexNode.Place((char)c);
            case '?' or '*' or '+':
                throw Error($"has nothing before '{(char)c}' to repeat");
            case '\\':
                if (_at + 1 < _text.Length && _text[_at + 1] is 'A' or 'z' or 'Z' or 'b' or 'B')
                {
                    _at += 2;
                    return new RegexNode.Place((char)_text[_at - 1]);
                }

                return new RegexNode.One(Cased(Escape(out _)));
            default:
                _at++;
                return new RegexNode.One(Cased(CodePointSet.Of(c)));
        }
    }

    private CodePointSet Cased(CodePointSet set) => _ignoreCase ? set.IgnoringCase() : set;

    private RegexNode? Group()
    {
        _at++;
        (bool ignoreCase, bool dotAll) = (_ignoreCase, _dotAll);
        RegexNode Inside()
        {
            RegexNode node = Alternatives();
            return Take(')') ? node : throw Error("lacks a ')'");
        }

        if (!Take('?'))
        {
            return Inside();
        }

        if (Take(':'))
        {
            return Inside();
        }

        if (Take('>'))
        {
            return new RegexNode.Atomic(Inside());
        }

        if (Take('='))
        {
            return new RegexNode.Look(Inside(), Behind: false, Negative: false);
        }

        if (Take('!'))
        {
            return new RegexNode.Look(Inside(), Behind: false, Negative: true);
        }

        if (Take("<="))
        {
            return Behind(Inside(), negative: false);
        }

        if (Take("<!"))
        {
            return Behind(Inside(), negative: true);
        }

        for (bool on = true; More; _at++)
        {
            switch (Peek)
            {
                case '-':
                    on = false;
                    break;
                case 'i':
                    _ignoreCase = on;
                    break;
                case 'm' or 's':
                    _dotAll = on;
                    break;
                case 'u':
                    break;
                case ':':
                    _at++;
                    RegexNode node = Inside();
                    (_ignoreCase, _dotAll) = (ignoreCase, dotAll);
                    return node;
                case ')':
                    // From here to the end of the group around it, alternatives included.
                    _at++;
                    return null;
                default:
                    throw Error($"has a group of a kind that is not supported, '(?{char.ConvertFromUtf32(Peek)}'");
            }
        }

        throw Error("lacks a ')'");
    }

    private RegexNode.Look Behind(RegexNode node, bool negative) => node.Width.Most <= 256
        ? new RegexNode.Look(node, Behind: true, negative)
        : throw Error("looks behind without a bound");

    // Sets *point to the code point where the escape is a single one, else to -1.
    private CodePointSet Escape(out int point)
    {
        _at++;
        if (!More)
        {
            throw Error("ends in a backslash");
        }

        int c = _text[_at++];
        point = -1;
        switch (c)
        {
            case 's':
                return CodePointSet.Space;
            case 'S':
                return CodePointSet.Space.Not();
            case 'd':
                return CodePointSet.Digit;
            case 'D':
                return CodePointSet.Digit.Not();
            case 'w':
                return CodePointSet.Word;
            case 'W':
                return CodePointSet.Word.Not();
            case 'h':
                return RegexProperties.HexDigit;
            case 'H':
                return RegexProperties.HexDigit.Not();
            case 'p' or 'P':
                return Property(c == 'P');
            case 'x':
                point = Take('{') ? Hex(1, 8, close: true) : Hex(1, 2, close: false);
                break;
            case 'u':
                point = Take('{') ? Hex(1, 8, close: true) : Hex(4, 4, close: false);
                break;
            default:
                point = c switch
                {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    'f' => '\f',
                    'v' => '\v',
                    'a' => '\a',
                    'e' => 0x1B,
                    '0' => 0,
                    (>= '1' and <= '9') or (>= 'a' and <= 'z') or (>= 'A' and <= 'Z') => throw Error($"uses '\\{(char)c}', which is not supported"),
                    _ => c,
                };
                break;
        }

        return CodePointSet.Of(point);
    }

    private int Hex(int least, int most, bool close)
    {
        int value = 0;
        int count = 0;
        for (; count < most && Peek is >= 0 and < 128 && Uri.IsHexDigit((char)Peek) && value < 1 << 24; count++, _at++)
        {
            value = (value * 16) + Convert.ToInt32(((char)Peek).ToString(), 16);
        }

        return count >= least && value <= 0x10FFFF && (!close || Take('}')) ? value : throw Error("has a malformed hexadecimal escape");
    }

    private CodePointSet Property(bool negative)
    {
        StringBuilder name = new();
        if (Take('{'))
        {
            negative ^= Take('^');
            for (; More && Peek != '}'; _at++)
            {
                name.Append(char.ConvertFromUtf32(Peek is >= 0xD800 and < 0xE000 ? 0xFFFD : Peek));
            }

            if (!Take('}'))
            {
                throw Error("lacks a '}'");
            }
        }
        else if (More)
        {
            name.Append(char.ConvertFromUtf32(_text[_at++]));
        }

        CodePointSet set = RegexProperties.Find(name.ToString()) ?? throw Error($"names the property '{name}', which is not known");
        return negative ? set.Not() : set;
    }

    // [...], with ranges, classes inside and intersections.
    private CodePointSet Class()
    {
        if (++_depth > MostDepth)
        {
            throw Error($"nests deeper than {MostDepth}");
        }

        _at++;
        bool negative = Take('^');
        CodePointSet? whole = null;
        List<CodePointSet> parts = [];
        for (bool first = true; ; first = false)
        {
            if (!More)
            {
                throw Error("lacks a ']'");
            }

            if (Peek == ']' && !first)
            {
                _at++;
                break;
            }

            if (Take("&&"))
            {
                CodePointSet left = CodePointSet.Union(parts);
                whole = whole is null ? left : whole.And(left);
                parts = [];
                continue;
            }

            parts.Add(ClassPart());
        }

        CodePointSet last = CodePointSet.Union(parts);
        whole = whole is null ? last : whole.And(last);
        // Case is folded before the complement is taken.
        whole = _ignoreCase && negative ? whole.IgnoringCase() : whole;
        _depth--;
        return negative ? whole.Not() : whole;
    }

    private CodePointSet ClassPart()
    {
        if (Peek == '[')
        {
            return Take("[:") ? Posix() : Class();
        }

        CodePointSet set = ClassAtom(out int point);
        if (point >= 0 && Peek == '-' && _at + 1 < _text.Length && _text[_at + 1] != ']')
        {
            int dash = _at++;
            if (Peek != '[')
            {
                ClassAtom(out int last);
                if (last >= 0)
                {
                    return last >= point ? CodePointSet.Range(point, last) : throw Error($"has a range from U+{point:X4} down to U+{last:X4}");
                }
            }

            _at = dash;
        }

        return set;
    }

    private CodePointSet ClassAtom(out int point)
    {
        if (Peek == '\\')
        {
            if (_at + 1 < _text.Length && _text[_at + 1] == 'b')
            {
                _at += 2;
                point = '\b';
                return CodePointSet.Of(point);
            }

            return Escape(out point);
        }

        point = _text[_at++];
        return CodePointSet.Of(point);
    }

    private CodePointSet Posix()
    {
        bool negative = Take('^');
        StringBuilder name = new();
        for (; Peek is >= 'a' and <= 'z'; _at++)
        {
            name.Append((char)Peek);
        }

        CodePointSet set = RegexProperties.Find(name.ToString()) ?? throw Error($"names the class '[:{name}:]', which is not known");
        return Take(":]") ? negative ? set.Not() : set : throw Error("lacks a ':]'");
    }
}
