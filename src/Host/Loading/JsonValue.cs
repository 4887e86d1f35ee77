using System.Globalization;
using System.Text.Json;

namespace Sluice.Loading;

/// <summary>
/// A value of a JSON file, and where it stands. Getters check what is there and name file, field and value when it is something else;
/// a key that is absent or null gives null.
/// </summary>
internal readonly struct JsonValue
{
    private const int MostDepth = 64;
    private const long MostBytes = 1 << 30;

    private static readonly JsonDocumentOptions Strict = new() { MaxDepth = MostDepth, AllowDuplicateProperties = false };

    private readonly string _file;

    private JsonValue(string file, string field, JsonElement element) => (_file, Field, Element) = (file, field, element);

    /// <summary>The parsed value.</summary>
    public JsonElement Element { get; }

    /// <summary>Where it stands: <c>model.vocab</c>; empty for the file's top.</summary>
    public string Field { get; }

    /// <summary>Reads a file whose top is an object. No key may stand twice, and nothing nests deeper than 64.</summary>
    /// <exception cref="FileNotFoundException">There is no such file.</exception>
    /// <exception cref="ModelFormatException">It is not such a file; the text names the line.</exception>
    public static JsonValue ReadFile(string path)
    {
        using FileSource source = FileSource.Open(path, memoryMap: false);
        if (source.Length > MostBytes)
        {
            throw new ModelFormatException(path, "", $"is {source.Length:N0} bytes of JSON, and at most {MostBytes:N0} are read");
        }

        byte[] bytes = new byte[source.Length];
        source.Read(0, bytes);
        return Parse(path, "", bytes);
    }

    /// <summary>Parses an object that stands in a file.</summary>
    /// <param name="file">The file's path, for errors.</param>
    /// <param name="field">Where in the file it stands; empty for all of it.</param>
    /// <param name="utf8">The text; kept, not copied.</param>
    /// <exception cref="ModelFormatException">It is no JSON object, a key stands twice, or it nests too deep.</exception>
    public static JsonValue Parse(string file, string field, ReadOnlyMemory<byte> utf8)
    {
        if (utf8.Span.StartsWith("\uFEFF"u8))
        {
            utf8 = utf8[3..];
        }

        try
        {
            RequireSmallTree(file, field, utf8.Span);
            JsonElement top = JsonDocument.Parse(utf8, Strict).RootElement;
            return top.ValueKind == JsonValueKind.Object
                ? new JsonValue(file, field, top)
                : throw new ModelFormatException(file, field, $"is JSON of kind {top.ValueKind}, and an object is expected");
        }
        catch (JsonException e)
        {
            throw new ModelFormatException(file, field, $"is not the JSON that is expected: {e.Message}", e);
        }
        catch (InvalidOperationException e)
        {
            throw new ModelFormatException(file, field, "holds text that is not valid Unicode", e);
        }
    }

    // A parsed tree takes so many bytes a value beside the text; a text of nothing but brackets would make it many times the file.
    private static void RequireSmallTree(string file, string field, ReadOnlySpan<byte> utf8)
    {
        const int TreeBytes = 12, Spare = 24 << 20;
        if ((long)utf8.Length * TreeBytes <= Spare)
        {
            return;
        }

        Utf8JsonReader reader = new(utf8, new JsonReaderOptions { MaxDepth = MostDepth });
        long values = 0;
        while (reader.Read())
        {
            values++;
        }

        if (values * TreeBytes > utf8.Length + Spare)
        {
            throw new ModelFormatException(file, field, $"holds {values:N0} values in {utf8.Length:N0} bytes, which no model file has");
        }
    }

    /// <summary>The value of a key, or null where it is absent or null.</summary>
    /// <exception cref="ModelFormatException">This is no object.</exception>
    public JsonValue? Get(string key)
    {
        if (Element.ValueKind != JsonValueKind.Object)
        {
            throw Wrong("an object");
        }

        return Element.TryGetProperty(key, out JsonElement value) && value.ValueKind != JsonValueKind.Null ? new JsonValue(_file, Inside(key), value) : null;
    }

    /// <summary>The value of a key.</summary>
    /// <exception cref="ModelFormatException">It is absent.</exception>
    public JsonValue Require(string key) => Get(key) ?? throw new ModelFormatException(_file, Inside(key), "is missing");

    /// <summary>The entries of this object, in file order.</summary>
    /// <exception cref="ModelFormatException">This is no object.</exception>
    public IEnumerable<(string Key, JsonValue Value)> Entries()
    {
        if (Element.ValueKind != JsonValueKind.Object)
        {
            throw Wrong("an object");
        }

        foreach (JsonProperty property in Element.EnumerateObject())
        {
            string name = NameOf(property);
            yield return (name, new JsonValue(_file, Inside(name), property.Value));
        }
    }

    /// <summary>The items of this array.</summary>
    /// <exception cref="ModelFormatException">This is no array.</exception>
    public IEnumerable<JsonValue> Items()
    {
        if (Element.ValueKind != JsonValueKind.Array)
        {
            throw Wrong("an array");
        }

        int index = 0;
        foreach (JsonElement item in Element.EnumerateArray())
        {
            yield return new JsonValue(_file, $"{Field}[{index++}]", item);
        }
    }

    /// <summary>This value as a text.</summary>
    /// <exception cref="ModelFormatException">It is no text, or holds a lone surrogate.</exception>
    public string Text()
    {
        if (Element.ValueKind != JsonValueKind.String)
        {
            throw Wrong("a text");
        }

        try
        {
            return Element.GetString()!;
        }
        catch (InvalidOperationException e)
        {
            throw new ModelFormatException(_file, Field, "holds text that is not valid Unicode", e);
        }
    }

    /// <summary>This value as an integer between two bounds, both allowed. 4096.0 is one too, as some writers have it.</summary>
    /// <exception cref="ModelFormatException">It is no integer, or is out of bounds.</exception>
    public long Integer(long least, long most)
    {
        if (Element.ValueKind != JsonValueKind.Number)
        {
            throw Wrong("an integer");
        }

        if (!Element.TryGetInt64(out long value))
        {
            value = Element.TryGetDouble(out double number) && Math.Floor(number) == number && Math.Abs(number) < 1L << 53 ? (long)number : throw Wrong("an integer of 63 bits");
        }

        return value >= least && value <= most ? value
            : throw new ModelFormatException(_file, Field, $"is {value.ToString("N0", CultureInfo.InvariantCulture)}, and must be from {least.ToString("N0", CultureInfo.InvariantCulture)} to {most.ToString("N0", CultureInfo.InvariantCulture)}");
    }

    /// <summary>This value as a finite number.</summary>
    /// <exception cref="ModelFormatException">It is no number, or is not finite.</exception>
    public double Number() => Element.ValueKind == JsonValueKind.Number && Element.TryGetDouble(out double value) && double.IsFinite(value) ? value : throw Wrong("a finite number");

    /// <summary>This value as a boolean.</summary>
    /// <exception cref="ModelFormatException">It is no boolean.</exception>
    public bool Boolean() => Element.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => throw Wrong("true or false"),
    };

    /// <summary>The text at a key, or null.</summary>
    public string? Text(string key) => Get(key)?.Text();

    /// <summary>The integer at a key, or null.</summary>
    public long? Integer(string key, long least, long most) => Get(key)?.Integer(least, most);

    /// <summary>The number at a key, or null.</summary>
    public double? Number(string key) => Get(key)?.Number();

    /// <summary>The boolean at a key, or null.</summary>
    public bool? Boolean(string key) => Get(key)?.Boolean();

    /// <summary>An error about this value: <paramref name="detail"/> tells what is wrong with it.</summary>
    public ModelFormatException Malformed(string detail) => new(_file, Field, detail);

    /// <summary>An error about this value: it is well-formed, and Sluice does not run it.</summary>
    public UnsupportedModelException Unsupported(string detail) => new(_file, Field, detail);

    private ModelFormatException Wrong(string expected)
    {
        string raw = Element.ValueKind is JsonValueKind.Object or JsonValueKind.Array ? Element.ValueKind.ToString() : Element.GetRawText();
        return Malformed($"is {(raw.Length > 60 ? raw[..60] + "..." : raw)}, and {expected} is expected");
    }

    private string NameOf(JsonProperty property)
    {
        try
        {
            return property.Name;
        }
        catch (InvalidOperationException e)
        {
            throw new ModelFormatException(_file, Field, "holds a key that is not valid Unicode", e);
        }
    }

    private string Inside(string key) => Field.Length == 0 ? key : $"{Field}.{key}";
}
