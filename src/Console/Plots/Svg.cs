using System.Globalization;
using System.Xml;
using System.Xml.Linq;

namespace Sluice.Plotting;

/// <summary>A picture of lines, marks and words, as an XML tree: nothing has to be escaped by hand. Colours follow the reader's light or dark scheme.</summary>
internal sealed class Svg
{
    private const string Style = """
        text { font: 12px system-ui, sans-serif; fill: #1f2328 }
        .title { font-size: 15px; font-weight: 600 } .small { font-size: 10px } .on-light { fill: #1f2328 } .on-dark { fill: #ffffff } .loses { font-weight: 700 }
        .paper { fill: #ffffff } .grid { stroke: #d1d9e0; stroke-width: 1 } .axis, .roof { stroke: #1f2328; fill: none } .roof { stroke-width: 2 } .curve { fill: none; stroke-width: 1.5 }
        @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .paper { fill: #0d1117 } .grid { stroke: #30363d } .axis, .roof { stroke: #e6edf3 } }
        text.on-light { fill: #1f2328 } text.on-dark { fill: #ffffff }
        """;

    private static readonly XNamespace Space = "http://www.w3.org/2000/svg";

    private readonly XElement _root;

    public Svg(double width, double height)
    {
        _root = new XElement(
            Space + "svg", new XAttribute("viewBox", $"0 0 {Number(width)} {Number(height)}"), new XAttribute("width", Number(width)), new XAttribute("height", Number(height)), new XAttribute("role", "img"),
            new XElement(Space + "style", Style));
        Rectangle(0, 0, width, height, "paper");
    }

    public void Line(double x1, double y1, double x2, double y2, string style) => Add("line", null, ("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2), ("class", style));

    public void Rectangle(double x, double y, double width, double height, string style, string? fill = null, string? title = null) =>
        Add("rect", title, ("x", x), ("y", y), ("width", width), ("height", height), ("class", style), ("fill", fill));

    public void Text(double x, double y, string text, string style = "", string anchor = "start", double turn = 0) =>
        Add("text", null, ("x", x), ("y", y), ("text-anchor", anchor), ("class", style), ("transform", turn == 0 ? null : $"rotate({Number(turn)} {Number(x)} {Number(y)})")).Add(new XText(Clean(text)));

    /// <summary>A line through points; its title is shown where a pointer rests.</summary>
    public void Curve(IEnumerable<(double X, double Y)> points, string colour, string title) =>
        Add("polyline", title, ("points", string.Join(' ', points.Select(p => $"{Number(p.X)},{Number(p.Y)}"))), ("class", "curve"), ("stroke", colour));

    /// <summary>A small form that colour-blind readers too tell from the others; its title is shown where a pointer rests.</summary>
    public void Mark(int form, double x, double y, string colour, string style, string title)
    {
        string at(double dx, double dy) => $"{Number(x + dx)},{Number(y + dy)}";
        string? points = (form % 6) switch
        {
            1 => $"{at(-4, -4)} {at(4, -4)} {at(4, 4)} {at(-4, 4)}",
            2 => $"{at(0, -5)} {at(5, 4)} {at(-5, 4)}",
            3 => $"{at(0, -5.5)} {at(5.5, 0)} {at(0, 5.5)} {at(-5.5, 0)}",
            4 => $"{at(0, 5)} {at(5, -4)} {at(-5, -4)}",
            5 => $"{at(-2, -5)} {at(2, -5)} {at(2, -2)} {at(5, -2)} {at(5, 2)} {at(2, 2)} {at(2, 5)} {at(-2, 5)} {at(-2, 2)} {at(-5, 2)} {at(-5, -2)} {at(-2, -2)}",
            _ => null,
        };
        if (points is null)
        {
            Add("circle", title, ("cx", x), ("cy", y), ("r", 4.0), ("class", style), ("fill", colour), ("fill-opacity", 0.7));
        }
        else
        {
            Add("polygon", title, ("points", points), ("class", style), ("fill", colour), ("fill-opacity", 0.7));
        }
    }

    public override string ToString() => _root.ToString() + "\n";

    private static string Number(double value) => value.ToString("0.##", CultureInfo.InvariantCulture);

    // A device calls itself what it likes; some characters no XML can hold.
    private static string Clean(string text) => string.Concat(text.Where(c => XmlConvert.IsXmlChar(c)));

    private XElement Add(string name, string? title, params (string Name, object? Value)[] attributes)
    {
        XElement element = new(Space + name, attributes.Where(a => a.Value is not (null or "")).Select(a => new XAttribute(a.Name, a.Value is double d ? Number(d) : Clean(a.Value!.ToString()!))));
        if (title is not null)
        {
            element.Add(new XElement(Space + "title", Clean(title)));
        }

        _root.Add(element);
        return element;
    }
}
