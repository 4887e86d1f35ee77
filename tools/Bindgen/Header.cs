using System.Diagnostics;
using System.Text.Json;

namespace Sluice.Tools.Bindgen;

/// <summary>A named thing with its comment, one string a line.</summary>
internal sealed record Field(string Name, string Type, int Length, IReadOnlyList<string> Comment);

internal sealed record Constant(string Name, long Value, IReadOnlyList<string> Comment);

internal sealed record Enumeration(string Name, IReadOnlyList<Constant> Constants, IReadOnlyList<string> Comment);

internal sealed record Struct(string Name, IReadOnlyList<Field> Fields, IReadOnlyList<string> Comment);

internal sealed record Function(string Name, string Returns, IReadOnlyList<Field> Parameters, IReadOnlyList<string> Comment);

/// <summary>What a C header declares, read from clang's JSON syntax tree: no parser of our own.</summary>
internal sealed class Header
{
    public List<Enumeration> Enumerations { get; } = [];

    public List<Struct> Structs { get; } = [];

    public List<string> Opaque { get; } = [];

    public List<Function> Functions { get; } = [];

    public static Header Parse(string path, string prefix)
    {
        using JsonDocument tree = JsonDocument.Parse(RunClang(path));
        Header header = new();
        HashSet<string> defined = [];
        foreach (JsonElement node in Inner(tree.RootElement))
        {
            string name = Text(node, "name");
            if (!name.StartsWith(prefix, StringComparison.Ordinal))
            {
                continue;
            }

            switch (Text(node, "kind"))
            {
                case "EnumDecl":
                    header.Enumerations.Add(new Enumeration(name, Constants(node), Comment(node)));
                    break;
                case "RecordDecl" when node.TryGetProperty("completeDefinition", out _):
                    header.Structs.Add(new Struct(name, Fields(node, "FieldDecl"), Comment(node)));
                    defined.Add(name);
                    break;
                case "RecordDecl":
                    header.Opaque.Add(name);
                    break;
                case "FunctionDecl":
                    string type = Text(node.GetProperty("type"), "qualType");
                    header.Functions.Add(new Function(name, type[..type.IndexOf('(', StringComparison.Ordinal)].Trim(), Fields(node, "ParmVarDecl"), Comment(node)));
                    break;
                default:
                    break;
            }
        }

        header.Opaque.RemoveAll(defined.Contains);
        return header;
    }

    private static string RunClang(string path)
    {
        string[] candidates = Environment.GetEnvironmentVariable("CLANG") is { Length: > 0 } named
            ? [named]
            : ["clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14"];
        foreach (string clang in candidates)
        {
            try
            {
                using Process process = Process.Start(new ProcessStartInfo(clang, ["-x", "c", "-std=c99", "-fparse-all-comments", "-Xclang", "-ast-dump=json", "-fsyntax-only", path]) { RedirectStandardOutput = true })!;
                string json = process.StandardOutput.ReadToEnd();
                process.WaitForExit();
                return process.ExitCode == 0 ? json : throw new InvalidOperationException($"{clang} refused {path}");
            }
            catch (System.ComponentModel.Win32Exception)
            {
                // Not on this machine: the next name.
            }
        }

        throw new FileNotFoundException("no clang on the PATH: install it (Debian: apt-get install clang-14), or name one in CLANG");
    }

    private static List<Constant> Constants(JsonElement node) =>
        [.. Inner(node).Where(n => Text(n, "kind") == "EnumConstantDecl").Select(n => new Constant(
            Text(n, "name"),
            long.Parse(Text(Inner(n).First(i => Text(i, "kind") == "ConstantExpr"), "value"), System.Globalization.CultureInfo.InvariantCulture),
            Comment(n)))];

    private static List<Field> Fields(JsonElement node, string kind)
    {
        List<Field> fields = [];
        foreach (JsonElement n in Inner(node).Where(n => Text(n, "kind") == kind))
        {
            string type = Text(n.GetProperty("type"), "qualType");
            int bracket = type.IndexOf('[', StringComparison.Ordinal);
            int length = bracket < 0 ? 0 : int.Parse(type[(bracket + 1)..^1], System.Globalization.CultureInfo.InvariantCulture);
            fields.Add(new Field(Text(n, "name"), bracket < 0 ? type : type[..bracket].Trim(), length, Comment(n)));
        }

        return fields;
    }

    private static List<string> Comment(JsonElement node)
    {
        List<string> lines = [];
        foreach (JsonElement full in Inner(node).Where(n => Text(n, "kind") == "FullComment"))
        {
            foreach (JsonElement paragraph in Inner(full))
            {
                lines.AddRange(Inner(paragraph).Select(t => Text(t, "text").Trim()).Where(t => t.Length > 0));
            }
        }

        // A banner between two groups ("- stream: ... ----") is no comment of what follows it.
        return lines.Count == 1 && (lines[0].StartsWith("- ", StringComparison.Ordinal) || lines[0].StartsWith("---", StringComparison.Ordinal)) ? [] : lines;
    }

    private static JsonElement.ArrayEnumerator Inner(JsonElement node) =>
        node.TryGetProperty("inner", out JsonElement inner) ? inner.EnumerateArray() : default;

    private static string Text(JsonElement node, string property) =>
        node.TryGetProperty(property, out JsonElement value) ? value.GetString() ?? "" : "";
}
