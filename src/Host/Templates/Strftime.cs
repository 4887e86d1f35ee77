using System.Globalization;

namespace Sluice.Templates;

/// <summary>C's <c>strftime</c> in the C locale, for a local time without a zone as Python's <c>datetime.now()</c> is one.</summary>
internal static class Strftime
{
    private static readonly string[] Days = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    private static readonly string[] Months = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"];

    public static Text Format(Runtime rt, Text format, DateTimeOffset now)
    {
        TextBuilder made = new(rt);
        string s = format.S;
        for (int at = 0; at < s.Length; at++)
        {
            if (s[at] != '%' || at + 1 == s.Length)
            {
                made.Append(format, at, 1);
                continue;
            }

            int start = at++;
            char flag = s[at] is '-' or '_' or '0' or '^' or '#' && at + 1 < s.Length ? s[at++] : '\0';
            string? field = Field(s[at], flag, now);
            if (field is null)
            {
                made.Append(format, start, at - start + 1);
            }
            else
            {
                made.Append(flag == '^' ? field.ToUpperInvariant() : field);
            }
        }

        return made.ToText();
    }

    private static string? Field(char directive, char flag, DateTimeOffset t)
    {
        int twelve = t.Hour % 12 == 0 ? 12 : t.Hour % 12;
        int sunday = (int)t.DayOfWeek, monday = (sunday + 6) % 7;
        switch (directive)
        {
            case 'a':
                return Days[sunday][..3];
            case 'A':
                return Days[sunday];
            case 'b' or 'h':
                return Months[t.Month - 1][..3];
            case 'B':
                return Months[t.Month - 1];
            case 'c':
                return $"{Days[sunday][..3]} {Months[t.Month - 1][..3]} {Number(t.Day, 2, ' ')} {Time(t)} {t.Year}";
            case 'C':
                return Pad(t.Year / 100, 2);
            case 'd':
                return Pad(t.Day, 2);
            case 'e':
                return Pad(t.Day, 2, ' ');
            case 'D' or 'x':
                return $"{Number(t.Month, 2)}/{Number(t.Day, 2)}/{Number(t.Year % 100, 2)}";
            case 'F':
                return $"{t.Year}-{Number(t.Month, 2)}-{Number(t.Day, 2)}";
            case 'f':
                return Number((int)(t.Ticks % TimeSpan.TicksPerSecond / 10), 6);
            case 'G':
                return Pad(ISOWeek.GetYear(t.DateTime), 1);
            case 'g':
                return Pad(ISOWeek.GetYear(t.DateTime) % 100, 2);
            case 'H':
                return Pad(t.Hour, 2);
            case 'k':
                return Pad(t.Hour, 2, ' ');
            case 'I':
                return Pad(twelve, 2);
            case 'l':
                return Pad(twelve, 2, ' ');
            case 'j':
                return Pad(t.DayOfYear, 3);
            case 'm':
                return Pad(t.Month, 2);
            case 'M':
                return Pad(t.Minute, 2);
            case 'n':
                return "\n";
            case 'p':
                return flag == '#' ? (t.Hour < 12 ? "am" : "pm") : t.Hour < 12 ? "AM" : "PM";
            case 'P':
                return t.Hour < 12 ? "am" : "pm";
            case 'r':
                return $"{Number(twelve, 2)}:{Number(t.Minute, 2)}:{Number(t.Second, 2)} {(t.Hour < 12 ? "AM" : "PM")}";
            case 'R':
                return $"{Number(t.Hour, 2)}:{Number(t.Minute, 2)}";
            case 's':
                return t.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
            case 'S':
                return Pad(t.Second, 2);
            case 't':
                return "\t";
            case 'T' or 'X':
                return Time(t);
            case 'u':
                return Pad(monday + 1, 1);
            case 'U':
                return Pad((t.DayOfYear + 6 - sunday) / 7, 2);
            case 'V':
                return Pad(ISOWeek.GetWeekOfYear(t.DateTime), 2);
            case 'w':
                return Pad(sunday, 1);
            case 'W':
                return Pad((t.DayOfYear + 6 - monday) / 7, 2);
            case 'y':
                return Pad(t.Year % 100, 2);
            case 'Y':
                return Pad(t.Year, 1);
            case 'z' or 'Z':
                return "";
            case '%':
                return "%";
            default:
                return null;
        }

        string Pad(int value, int width, char fill = '0') => flag switch { '-' => Number(value, 1), '_' => Number(value, width, ' '), '0' => Number(value, width), _ => Number(value, width, fill) };
    }

    private static string Time(DateTimeOffset t) => $"{Number(t.Hour, 2)}:{Number(t.Minute, 2)}:{Number(t.Second, 2)}";

    private static string Number(int value, int width, char fill = '0') => value.ToString(CultureInfo.InvariantCulture).PadLeft(width, fill);
}
