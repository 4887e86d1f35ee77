using System.Globalization;
using System.Text;

namespace Sluice.Templates;

internal enum TokenKind
{
    Data,
    PrintBegin,
    PrintEnd,
    BlockBegin,
    BlockEnd,
    Name,
    Text,
    Integer,
    Float,
    Operator,
    End,
}

/// <summary>A token; <paramref name="Text"/> is what it says (a string's value, not its source) and <paramref name="At"/> where it begins.</summary>
internal readonly record struct Token(TokenKind Kind, string Text, int At)
{
    public bool Is(string op) => Kind == TokenKind.Operator && Text == op;

    public bool IsName(string name) => Kind == TokenKind.Name && Text == name;
}

/// <summary>
/// Cuts a template into tokens as Jinja 3.1 does with trim_blocks and lstrip_blocks set and keep_trailing_newline unset: the newline after a
/// block or comment goes, and so does the indentation before one.
/// </summary>
internal sealed class TemplateLexer
{
    private static readonly string[] Operators = ["**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<", "=", ".", ":", "|", ",", ";"];

    private readonly string _file;
    private readonly string _source;
    private readonly List<Token> _tokens = [];
    private readonly Stack<char> _open = new();
    private int _at;
    private bool _lineStarts = true;

    private TemplateLexer(string file, string source)
    {
        _file = file;
        source = Newlines(source);
        _source = source.EndsWith('\n') ? source[..^1] : source;
    }

    public static (List<Token> Tokens, string Source) Read(string file, string source)
    {
        TemplateLexer lexer = new(file, source);
        lexer.Run();
        return (lexer._tokens, lexer._source);
    }

    /// <summary>A syntax error at a place of a source whose newlines are already one character each.</summary>
    public static ChatTemplateException Error(string file, string source, int at, string detail)
    {
        ReadOnlySpan<char> before = source.AsSpan(0, Math.Min(at, source.Length));
        return new ChatTemplateException(ChatTemplateError.Syntax, file, before.Count('\n') + 1, before.Length - before.LastIndexOf('\n'), detail);
    }

    private static string Newlines(string s) => s.Contains('\r', StringComparison.Ordinal) ? s.Replace("\r\n", "\n", StringComparison.Ordinal).Replace('\r', '\n') : s;

    private void Run()
    {
        while (_at < _source.Length)
        {
            int tag = NextTag(_at);
            if (tag < 0)
            {
                _tokens.Add(new Token(TokenKind.Data, _source[_at..], _at));
                break;
            }

            char kind = _source[tag + 1];
            char sign = tag + 2 < _source.Length && _source[tag + 2] is '-' or '+' ? _source[tag + 2] : '\0';
            AddData(_at, tag, sign, kind != '{');
            _at = tag + 2 + (sign == '\0' ? 0 : 1);
            switch (kind)
            {
                case '#':
                    SkipComment(tag);
                    break;
                case '%' when RawBegins() is { } raw:
                    ReadRaw(tag, raw);
                    break;
                default:
                    ReadTag(tag, kind == '%');
                    break;
            }

            _lineStarts = _source[_at - 1] == '\n';
        }

        _tokens.Add(new Token(TokenKind.End, "", _source.Length));
    }

    private int NextTag(int from)
    {
        for (int at = from; ; at++)
        {
            int found = _source.AsSpan(at).IndexOf('{');
            if (found < 0 || at + found + 1 >= _source.Length)
            {
                return -1;
            }

            at += found;
            if (_source[at + 1] is '{' or '%' or '#')
            {
                return at;
            }
        }
    }

    private void AddData(int from, int to, char sign, bool strips)
    {
        int end = to;
        if (sign == '-')
        {
            while (end > from && PythonText.IsSpace(_source[end - 1]))
            {
                end--;
            }
        }
        else if (sign != '+' && strips)
        {
            int line = _source.AsSpan(from, to - from).LastIndexOf('\n') + 1;
            if (line > 0 || _lineStarts)
            {
                end = from + line;
                for (int i = end; i < to; i++)
                {
                    if (!PythonText.IsSpace(_source[i]))
                    {
                        end = to;
                        break;
                    }
                }
            }
        }

        if (end > from)
        {
            _tokens.Add(new Token(TokenKind.Data, _source[from..end], from));
        }
    }

    // How a tag ends, "-" + close and white space, "+" + close, or close and one newline; -1 where none stands at this place.
    private int EndsAt(int at, string close, bool trims)
    {
        if (at >= _source.Length)
        {
            return -1;
        }

        char sign = _source[at];
        if (sign is '-' or '+' && string.CompareOrdinal(_source, at + 1, close, 0, 2) == 0)
        {
            int end = at + 3;
            if (sign == '+')
            {
                return trims ? end : -1;
            }

            while (end < _source.Length && PythonText.IsSpace(_source[end]))
            {
                end++;
            }

            return end;
        }

        if (string.CompareOrdinal(_source, at, close, 0, 2) != 0)
        {
            return -1;
        }

        return at + 2 + (trims && at + 2 < _source.Length && _source[at + 2] == '\n' ? 1 : 0);
    }

    private void SkipComment(int tag)
    {
        for (; _at < _source.Length; _at++)
        {
            if (EndsAt(_at, "#}", true) is int end and >= 0)
            {
                _at = end;
                return;
            }
        }

        throw Error(tag, "this comment has no end: '#}' is missing");
    }

    // {% raw %}: where its content begins, or null where the tag is another.
    private int? RawBegins()
    {
        int at = Word(_at, "raw");
        if (at < 0)
        {
            return null;
        }

        int end = EndsAt(at, "%}", true);
        return end < 0 || _source[at] == '+' ? null : _source[at] == '-' ? end : at + 2;
    }

    private int Word(int at, string word)
    {
        at = SkipSpace(at);
        return string.CompareOrdinal(_source, at, word, 0, word.Length) == 0 ? SkipSpace(at + word.Length) : -1;
    }

    private int SkipSpace(int at)
    {
        while (at < _source.Length && PythonText.IsSpace(_source[at]))
        {
            at++;
        }

        return at;
    }

    private void ReadRaw(int tag, int content)
    {
        for (int at = content; ; at += 2)
        {
            int found = _source.AsSpan(at).IndexOf("{%");
            if (found < 0)
            {
                throw Error(tag, "this raw block has no end: '{% endraw %}' is missing");
            }

            at += found;
            char sign = at + 2 < _source.Length && _source[at + 2] is '-' or '+' ? _source[at + 2] : '\0';
            int after = Word(at + 2 + (sign == '\0' ? 0 : 1), "endraw");
            int end = after < 0 ? -1 : EndsAt(after, "%}", true);
            if (end >= 0)
            {
                // What stands before decides whether the block's own line is indentation.
                _lineStarts = _source[content - 1] == '\n';
                AddData(content, at, sign, true);
                _at = end;
                return;
            }
        }
    }

    private void ReadTag(int tag, bool block)
    {
        (string close, TokenKind begin, TokenKind endKind) = block ? ("%}", TokenKind.BlockBegin, TokenKind.BlockEnd) : ("}}", TokenKind.PrintBegin, TokenKind.PrintEnd);
        _tokens.Add(new Token(begin, "", tag));
        _open.Clear();
        while (true)
        {
            if (_open.Count == 0 && EndsAt(_at, close, block) is int end and >= 0)
            {
                _tokens.Add(new Token(endKind, "", _at));
                _at = end;
                return;
            }

            if (_at >= _source.Length)
            {
                throw Error(tag, $"this tag has no end: '{close}' is missing");
            }

            char c = _source[_at];
            if (PythonText.IsSpace(c))
            {
                _at++;
            }
            else if (char.IsAsciiDigit(c))
            {
                ReadNumber();
            }
            else if (c == '_' || char.IsLetter(c))
            {
                int start = _at;
                while (_at < _source.Length && (_source[_at] == '_' || char.IsLetterOrDigit(_source[_at])))
                {
                    _at++;
                }

                _tokens.Add(new Token(TokenKind.Name, _source[start.._at], start));
            }
            else if (c is '\'' or '"')
            {
                ReadText(c);
            }
            else
            {
                ReadOperator();
            }
        }
    }

    private void ReadOperator()
    {
        foreach (string op in Operators)
        {
            if (string.CompareOrdinal(_source, _at, op, 0, op.Length) != 0)
            {
                continue;
            }

            switch (op)
            {
                case "{" or "[" or "(":
                    _open.Push(op == "{" ? '}' : op == "[" ? ']' : ')');
                    break;
                case "}" or "]" or ")":
                    if (_open.Count == 0 || _open.Pop() != op[0])
                    {
                        throw Error(_at, $"'{op}' closes nothing that is open here");
                    }

                    break;
            }

            _tokens.Add(new Token(TokenKind.Operator, op, _at));
            _at += op.Length;
            return;
        }

        throw Error(_at, $"the character U+{(int)_source[_at]:X4} has no meaning here");
    }

    private void ReadNumber()
    {
        int start = _at;
        if (_source[start] == '0' && start + 1 < _source.Length && (_source[start + 1] | 0x20) is 'x' or 'b' or 'o')
        {
            int radix = (_source[start + 1] | 0x20) switch { 'x' => 16, 'o' => 8, _ => 2 };
            int digits = Digits(start + 2, c => char.IsAsciiHexDigit(c) && Convert.ToInt32(c.ToString(), 16) < radix, true);
            if (digits > start + 2)
            {
                string text = _source[(start + 2)..digits].Replace("_", "", StringComparison.Ordinal).TrimStart('0');
                if (text.Length * (radix == 16 ? 4 : radix == 8 ? 3 : 1) > 63)
                {
                    throw Error(start, "this integer does not fit 63 bits");
                }

                _at = digits;
                _tokens.Add(new Token(TokenKind.Integer, (text.Length == 0 ? 0 : Convert.ToInt64(text, radix)).ToString(CultureInfo.InvariantCulture), start));
                return;
            }
        }

        int whole = Digits(start, char.IsAsciiDigit, false);
        int end = whole;
        bool afterDot = start > 0 && _source[start - 1] == '.';
        if (!afterDot)
        {
            if (end + 1 < _source.Length && _source[end] == '.' && char.IsAsciiDigit(_source[end + 1]))
            {
                end = Digits(end + 1, char.IsAsciiDigit, false);
            }

            if (end < _source.Length && _source[end] is 'e' or 'E')
            {
                int exponent = end + 1 < _source.Length && _source[end + 1] is '+' or '-' ? end + 2 : end + 1;
                int last = Digits(exponent, char.IsAsciiDigit, false);
                end = last > exponent ? last : end;
            }
        }

        if (end == whole && _source[start] == '0')
        {
            // Python has no 012.
            end = Digits(start, c => c == '0', false);
        }

        _at = end;
        string number = _source[start..end].Replace("_", "", StringComparison.Ordinal);
        _tokens.Add(new Token(end == whole || _source[start..end].All(c => c is '0' or '_') ? TokenKind.Integer : TokenKind.Float, number, start));
    }

    private int Digits(int at, Func<char, bool> digit, bool leading)
    {
        int end = at;
        while (end < _source.Length && (digit(_source[end]) || (_source[end] == '_' && (end > at || leading) && end + 1 < _source.Length && digit(_source[end + 1]))))
        {
            end++;
        }

        return end;
    }

    private void ReadText(char quote)
    {
        int start = _at++;
        StringBuilder text = new();
        while (true)
        {
            int stop = _source.AsSpan(_at).IndexOfAny(quote, '\\');
            if (stop < 0 || _at + stop + 1 >= _source.Length + (_source[_at + stop] == quote ? 1 : 0))
            {
                throw Error(start, "this string has no end");
            }

            text.Append(_source, _at, stop);
            _at += stop + 1;
            if (_source[_at - 1] == quote)
            {
                break;
            }

            ReadEscape(text);
        }

        _tokens.Add(new Token(TokenKind.Text, text.ToString(), start));
    }

    private void ReadEscape(StringBuilder text)
    {
        int start = _at - 1;
        char c = _source[_at++];
        switch (c)
        {
            case '\n':
                break;
            case '\\' or '\'' or '"':
                text.Append(c);
                break;
            case 'n':
                text.Append('\n');
                break;
            case 't':
                text.Append('\t');
                break;
            case 'r':
                text.Append('\r');
                break;
            case 'a':
                text.Append('\a');
                break;
            case 'b':
                text.Append('\b');
                break;
            case 'f':
                text.Append('\f');
                break;
            case 'v':
                text.Append('\v');
                break;
            case >= '0' and <= '7':
                int octal = c - '0';
                for (int i = 0; i < 2 && _at < _source.Length && _source[_at] is >= '0' and <= '7'; i++)
                {
                    octal = (octal * 8) + _source[_at++] - '0';
                }

                text.Append((char)octal);
                break;
            case 'x' or 'u' or 'U':
                int count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
                if (_at + count > _source.Length || !int.TryParse(_source.AsSpan(_at, count), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out int code) || code is < 0 or > 0x10FFFF)
                {
                    throw Error(start, $"'\\{c}' needs {count} hexadecimal digits of a code point");
                }

                _at += count;
                text.Append(code > 0xFFFF ? char.ConvertFromUtf32(code) : ((char)code).ToString());
                break;
            case 'N':
                throw Error(start, "names of characters are not supported: write the character, or its number after '\\u'");
            default:
                text.Append('\\').Append(c);
                break;
        }
    }

    private ChatTemplateException Error(int at, string detail) => Error(_file, _source, at, detail);
}
