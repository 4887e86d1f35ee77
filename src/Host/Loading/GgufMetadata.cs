using System.Diagnostics.CodeAnalysis;

namespace Sluice.Loading;

/// <summary>A file's metadata in file order, with getters that check the type and name file and key when it is another.</summary>
public sealed class GgufMetadata
{
    private readonly string _file;
    private readonly List<KeyValuePair<string, GgufValue>> _entries = [];
    private readonly Dictionary<string, GgufValue> _byKey = new(StringComparer.Ordinal);

    internal GgufMetadata(string file) => _file = file;

    /// <summary>All entries in file order.</summary>
    public IReadOnlyList<KeyValuePair<string, GgufValue>> Entries => _entries;

    /// <summary>Number of entries.</summary>
    public int Count => _entries.Count;

    /// <summary>Finds a value by its key.</summary>
    public bool TryGet(string key, [NotNullWhen(true)] out GgufValue? value) => _byKey.TryGetValue(key, out value);

    /// <summary>An integer, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no integer of 63 bits.</exception>
    public long? GetInteger(string key) => !TryGet(key, out GgufValue? value) ? null
        : value.TryGetInteger(out long integer) ? integer : throw Wrong(key, value, "an integer");

    /// <summary>An integer between two bounds, both allowed, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no integer, or is out of bounds.</exception>
    public int? GetInteger(string key, int least, int most)
    {
        long? value = GetInteger(key);
        return value is null ? null
            : value >= least && value <= most ? (int)value
            : throw new ModelFormatException(_file, key, $"is {value:N0}, and must be from {least:N0} to {most:N0}");
    }

    /// <summary>A number, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no number, or is not finite.</exception>
    public double? GetNumber(string key)
    {
        if (!TryGet(key, out GgufValue? value))
        {
            return null;
        }

        if (!value.TryGetNumber(out double number))
        {
            throw Wrong(key, value, "a number");
        }

        return double.IsFinite(number) ? number : throw new ModelFormatException(_file, key, $"is {number}, and must be finite");
    }

    /// <summary>A boolean, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no boolean.</exception>
    public bool? GetBoolean(string key) => !TryGet(key, out GgufValue? value) ? null
        : value.TryGetBoolean(out bool flag) ? flag : throw Wrong(key, value, "a boolean");

    /// <summary>A text, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no string.</exception>
    public string? GetText(string key) => !TryGet(key, out GgufValue? value) ? null
        : value.TryGetText(out string text) ? text : throw Wrong(key, value, "a string");

    /// <summary>An array of strings, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no array of strings.</exception>
    public GgufValue? GetStrings(string key) => !TryGet(key, out GgufValue? value) ? null
        : value.Type == GgufValueType.Array && value.ElementType == GgufValueType.String ? value : throw Wrong(key, value, "an array of strings");

    /// <summary>An array of 32-bit floats, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no array of 32-bit floats.</exception>
    public float[]? GetFloats(string key) => !TryGet(key, out GgufValue? value) ? null
        : value.TryGetFloats(out float[] floats) ? floats : throw Wrong(key, value, "an array of Float32");

    /// <summary>An array of integers, or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no array of integers.</exception>
    public long[]? GetIntegers(string key) => !TryGet(key, out GgufValue? value) ? null
        : value.TryGetIntegers(out long[] integers) ? integers : throw Wrong(key, value, "an array of integers");

    /// <summary>An array of booleans (or of integers, of which 0 is false), or null where the key is absent.</summary>
    /// <exception cref="ModelFormatException">The value is no array of booleans.</exception>
    public bool[]? GetBooleans(string key)
    {
        if (!TryGet(key, out GgufValue? value))
        {
            return null;
        }

        if (value.Type == GgufValueType.Array && value.ElementType == GgufValueType.Bool)
        {
            return [.. value.Bytes.ToArray().Select(b => b != 0)];
        }

        return value.TryGetIntegers(out long[] integers) ? [.. integers.Select(i => i != 0)] : throw Wrong(key, value, "an array of booleans");
    }

    internal bool TryAdd(string key, GgufValue value)
    {
        if (!_byKey.TryAdd(key, value))
        {
            return false;
        }

        _entries.Add(new(key, value));
        return true;
    }

    private ModelFormatException Wrong(string key, GgufValue value, string wanted) =>
        new(_file, key, $"is of type {value.Describe()}, and {wanted} is expected");
}
