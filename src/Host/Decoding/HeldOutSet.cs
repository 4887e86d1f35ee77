using System.Text;
using System.Text.Json;
using Sluice.Loading;
using Sluice.Templates;

namespace Sluice.Decoding;

/// <summary>How a reply is held against the reference.</summary>
public enum ReplyMatch
{
    /// <summary>The texts are the same, but for white space around them.</summary>
    Text,

    /// <summary>Both are one JSON value, and the values are the same: numbers by value, members in any order.</summary>
    Json,
}

/// <summary>A conversation that asks for something, and the reply that is right.</summary>
/// <param name="Skill">What it tests.</param>
/// <param name="Messages">The conversation; the last message is the user's.</param>
/// <param name="Reply">The reference reply.</param>
/// <param name="Match">How a reply is compared.</param>
/// <param name="Mark">Only what follows the last of these is compared; null: all of the reply.</param>
/// <param name="Line">Where it stands in its file, from 1.</param>
public sealed record HeldOutItem(string Skill, IReadOnlyList<ChatMessage> Messages, string Reply, ReplyMatch Match, string? Mark, int Line)
{
    // A key that stands twice is no value that both sides must read alike.
    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = 64, AllowDuplicateProperties = false };

    /// <summary>True where a reply says what the reference says.</summary>
    public bool IsRight(string reply)
    {
        ArgumentNullException.ThrowIfNull(reply);
        return Answer(reply) is { } got && Answer(Reply) is { } expected && (Match == ReplyMatch.Text ? got == expected : SameJson(got, expected));
    }

    /// <summary>What of a reply is compared, trimmed; null where the mark is not in it.</summary>
    internal string? Answer(string reply)
    {
        int at = Mark is null ? 0 : reply.LastIndexOf(Mark, StringComparison.Ordinal);
        return at < 0 ? null : reply[(at + (Mark?.Length ?? 0))..].Trim();
    }

    internal static bool SameJson(string a, string b)
    {
        try
        {
            using JsonDocument left = JsonDocument.Parse(a, Strict), right = JsonDocument.Parse(b, Strict);
            return JsonElement.DeepEquals(left.RootElement, right.RootElement);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or ArgumentException)
        {
            return false; // no JSON; text that is no Unicode; an exponent beyond all numbers
        }
    }
}

/// <summary>
/// Items that a model has not been trained on, as JSON lines:
/// <c>{"skill": "sums", "messages": [{"role": "user", "content": "3 + 4?"}], "reply": "Answer: 7", "mark": "Answer: "}</c>.
/// <c>skill</c>, <c>messages</c> (the last one is the user's) and <c>reply</c> are required; <c>match</c> is <c>text</c> (the default) or <c>json</c>;
/// with <c>mark</c>, what follows the last of them in a reply is compared. Other keys are not read.
/// </summary>
public sealed class HeldOutSet
{
    private const string Shape = """write one item a line, as {"skill": "sums", "messages": [{"role": "user", "content": "3 + 4?"}], "reply": "7"}""";
    private const int MostItems = 100_000, MostSkills = 1_000, MostMessages = 256, MostNameChars = 64, MostMarkChars = 256;

    private HeldOutSet(string name, IReadOnlyList<HeldOutItem> items) => (Name, Items) = (name, items);

    /// <summary>Where it came from.</summary>
    public string Name { get; }

    /// <summary>The items, in the file's order.</summary>
    public IReadOnlyList<HeldOutItem> Items { get; }

    /// <summary>The skills, in the order in which they come.</summary>
    public IReadOnlyList<string> Skills => [.. Items.Select(i => i.Skill).Distinct(StringComparer.Ordinal)];

    /// <summary>Reads a file of 16 MiB at most.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="SluiceModelException">The file is malformed; the text names file, line and field, and what is expected.</exception>
    public static HeldOutSet Read(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return File.Exists(path) || Directory.Exists(path) ? Parse(path, TextFile.Read(path)) : throw new FileNotFoundException($"held-out set '{path}' does not exist", path);
    }

    /// <summary>Reads a text.</summary>
    /// <param name="name">Where it came from, for errors.</param>
    /// <param name="text">The lines; empty ones do not count.</param>
    /// <exception cref="SluiceModelException">The text is malformed; the error names line and field, and what is expected.</exception>
    public static HeldOutSet Parse(string name, string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        List<HeldOutItem> items = [];
        HashSet<string> skills = new(StringComparer.Ordinal);
        int number = 0;

        // Lines end at line feeds alone: a text in JSON may hold what else Unicode takes for a line's end.
        foreach (Range range in text.AsSpan().Split('\n'))
        {
            number++;
            string line = text[range].Trim(' ', '\t', '\r', '\uFEFF');
            if (line.Length > 0)
            {
                items.Add(Item(name, number, line));
                if (items.Count > MostItems || (skills.Add(items[^1].Skill) && skills.Count > MostSkills))
                {
                    throw new ModelFormatException(name, $"line {number}", $"is past the {MostItems:N0} items of {MostSkills:N0} skills that a set may have: cut the file");
                }
            }
        }

        return items.Count > 0 ? new HeldOutSet(name, items) : throw new ModelFormatException(name, "", $"holds no item: {Shape}");
    }

    /// <summary>Some of the items.</summary>
    /// <param name="skills">Whose; null: all.</param>
    /// <param name="limit">The first so many of each skill; null: all.</param>
    /// <exception cref="ArgumentException">The set has no such skill, or the limit is below 1.</exception>
    public HeldOutSet Select(IReadOnlyCollection<string>? skills, int? limit)
    {
        if (limit < 1)
        {
            throw new ArgumentException($"a limit of {limit:N0} items a skill was asked for, and may be 1 or more");
        }

        IReadOnlyList<string> known = Skills;
        if (skills?.FirstOrDefault(s => !known.Contains(s)) is { } unknown)
        {
            throw new ArgumentException($"{Name} has no skill '{unknown}'; it has {string.Join(", ", known)}");
        }

        Dictionary<string, int> taken = new(StringComparer.Ordinal);
        return new HeldOutSet(Name, [.. Items.Where(i => skills is null || skills.Contains(i.Skill)).Where(i => (taken[i.Skill] = taken.GetValueOrDefault(i.Skill) + 1) <= (limit ?? int.MaxValue))]);
    }

    private static HeldOutItem Item(string file, int number, string line)
    {
        string place = $"line {number}";
        JsonValue json;
        try
        {
            json = JsonValue.Parse(file, place, Encoding.UTF8.GetBytes(line));
        }
        catch (ModelFormatException e) when (e.InnerException is JsonException inner)
        {
            // The parser counts lines too, within this one.
            string reason = inner.Message.Split(" LineNumber:")[0];
            throw new ModelFormatException(file, place, $"is no JSON object from byte {inner.BytePositionInLine ?? 0} on ({reason.TrimEnd('.')}): {Shape}", e);
        }

        string skill = Require(json, "skill").Text();
        if (string.IsNullOrWhiteSpace(skill) || skill.Length > MostNameChars || skill.Any(char.IsControl))
        {
            throw Require(json, "skill").Malformed($"must be a name of 1 to {MostNameChars} characters, none of them a control character");
        }

        ChatMessage[] messages = [.. Require(json, "messages").Items().Take(MostMessages + 1).Select(Message)];
        if (messages.Length is 0 or > MostMessages || messages[^1].Role != "user")
        {
            throw Require(json, "messages").Malformed(
                messages.Length == 0 ? "is empty: give the user's message"
                : messages.Length > MostMessages ? $"has more than the {MostMessages:N0} messages that are read"
                : $"ends with a message of role '{messages[^1].Role}': the last one must be the user's, whom the reply answers");
        }

        string reply = Require(json, "reply").Text();
        ReplyMatch match = json.Text("match") switch
        {
            null or "text" => ReplyMatch.Text,
            "json" => ReplyMatch.Json,
            _ => throw Require(json, "match").Malformed("must be text or json"),
        };
        string? mark = json.Text("mark");
        if (mark?.Length is 0 or > MostMarkChars)
        {
            throw Require(json, "mark").Malformed($"must have 1 to {MostMarkChars} characters; leave it out to compare whole replies");
        }

        HeldOutItem item = new(skill, messages, reply, match, mark, number);
        string answer = item.Answer(reply) ?? throw Require(json, "reply").Malformed("does not hold the mark, behind which its answer must stand");
        return answer.Length == 0 ? throw Require(json, "reply").Malformed(mark is null ? "is empty: there is nothing to compare with" : "has nothing behind the mark to compare with")
            : match == ReplyMatch.Json && !HeldOutItem.SameJson(answer, answer) ? throw Require(json, "reply").Malformed("is no JSON value, and 'match' says that it is compared as one")
            : item;
    }

    private static ChatMessage Message(JsonValue json)
    {
        string role = Require(json, "role").Text(), content = Require(json, "content").Text();

        // Where a model has no template, roles stand among control tokens: a word cannot be one.
        bool word = role.Length is > 0 and <= MostNameChars && role.All(c => char.IsAsciiLetterOrDigit(c) || c is '_' or '-');
        return word ? new ChatMessage(role, content) : throw Require(json, "role").Malformed("must be a word, as system, user or assistant");
    }

    private static JsonValue Require(JsonValue json, string key) => json.Get(key) ?? throw json.Malformed($"has no '{key}': {Shape}");
}
