using System.Globalization;
using Sluice.Decoding;

namespace Sluice.Plotting;

/// <summary>A serving benchmark as a picture: how times are distributed, what was made when, and who ran and waited.</summary>
internal static class ServingPlots
{
    private const double Left = 70, Width = 660, Height = 220, Between = 96, FirstTop = 104;
    private const int MostPoints = 400, Bins = 60; // more than these nobody sees

    /// <param name="run">What was seen.</param>
    /// <param name="title">Of which model, by which verb.</param>
    /// <param name="requests">Of which requests.</param>
    /// <param name="device">Where.</param>
    public static string Draw(ServingRun run, string title, string requests, string device)
    {
        Svg svg = new(Left + Width + 30, FirstTop + (3 * (Height + Between)) - 30);
        svg.Text(20, 24, title, "title");
        svg.Text(20, 44, requests);
        svg.Text(20, 62, device, "small");
        DrawTimes(svg, FirstTop, run);
        DrawRate(svg, FirstTop + Height + Between, run);
        DrawLoad(svg, FirstTop + (2 * (Height + Between)), run);
        return svg.ToString();
    }

    // The share of values that are no longer than a time; the times' axis is logarithmic, for a token takes milliseconds and a request seconds.
    private static void DrawTimes(Svg svg, double top, ServingRun run)
    {
        (string Name, double[] Values)[] series =
        [
            ("TTFT", Milliseconds(run.Requests.Select(r => r.TimeToFirstToken))),
            ("TPOT", Milliseconds(run.Requests.Select(r => r.TimePerOutputToken))),
            ("ITL", Milliseconds(run.Requests.SelectMany(r => r.InterTokenLatencies).Select(s => (double?)s))),
            ("end to end", Milliseconds(run.Requests.Select(r => r.EndToEnd))),
        ];
        Frame(svg, top, "share of values, over milliseconds", [.. series.Select(s => s.Values.Length == 0 ? $"{s.Name} (none)" : s.Name)]);
        for (int line = 0; line <= 5; line++)
        {
            YTick(svg, top, line, $"{20 * line}%");
        }

        double[] ends = [.. series.Where(s => s.Values.Length > 0).SelectMany(s => new[] { s.Values[0], s.Values[^1] })];
        if (ends.Length == 0)
        {
            return;
        }

        (int from, int to) = Axis.Decades(ends);
        double X(double value) => Left + (Width * (Math.Log10(value) - from) / (to - from));
        for (int decade = from; decade <= to; decade++)
        {
            double x = X(Math.Pow(10, decade));
            svg.Line(x, top, x, top + Height, "grid");
            svg.Text(x, top + Height + 18, Text("#,0.######", Math.Pow(10, decade)), anchor: "middle");
        }

        for (int i = 0; i < series.Length; i++)
        {
            double[] values = series[i].Values;
            if (values.Length == 0)
            {
                continue;
            }

            // A step a value; where there are too many, a point a quantile.
            int points = Math.Min(values.Length, MostPoints);
            svg.Curve(
                Enumerable.Range(0, points).SelectMany(p =>
                {
                    double x = X(values[(int)(((p + 1L) * values.Length / points) - 1)]);
                    return new[] { (x, top + Height - (Height * p / points)), (x, top + Height - (Height * (p + 1) / points)) };
                }),
                Axis.Colour(i),
                $"{series[i].Name}: P50 {Text("#,0.##", Distribution.Percentile(values, 50))} ms, P99 {Text("#,0.##", Distribution.Percentile(values, 99))} ms of {values.Length:N0}");
        }

        // No time is 0 on an axis of logarithms: tokens that a reader found together stand at a microsecond.
        static double[] Milliseconds(IEnumerable<double?> seconds) => [.. seconds.OfType<double>().Select(s => Math.Max(1e3 * s, 1e-3)).Order()];
    }

    private static void DrawRate(Svg svg, double top, ServingRun run)
    {
        Frame(svg, top, "generated tokens a second, over seconds", []);
        double end = Math.Max(run.Seconds, 1e-6), bin = end / Bins;
        double[] rates = new double[Bins];
        foreach (double time in run.Requests.SelectMany(r => r.TokenTimes))
        {
            rates[Math.Min(Bins - 1, (int)(time / bin))] += 1 / bin;
        }

        Chart(svg, top, end, [("tokens a second", rates.Index().SelectMany(r => new[] { (r.Index * bin, r.Item), ((r.Index + 1) * bin, r.Item) }))]);
    }

    // As the requests tell it: they wait from arrival to their first step, and run from there to their last token, also where they had to make room meanwhile.
    private static void DrawLoad(Svg svg, double top, ServingRun run)
    {
        Frame(svg, top, "requests, over seconds", ["running", "waiting"]);
        (double Arrived, double Begun, double Ended)[] spans =
        [
            .. run.Requests.Where(r => r.Sent is not null).Select(r => (r.Arrival, Begun: Math.Min(r.Arrival + (r.Queue ?? run.Seconds), run.Seconds), r.IsComplete ? r.TokenTimes[^1] : run.Seconds)),
        ];
        Chart(svg, top, Math.Max(run.Seconds, 1e-6), [("running", Counted(spans.Select(s => (s.Begun, s.Ended)))), ("waiting", Counted(spans.Select(s => (s.Arrived, s.Begun))))]);
    }

    // How many spans hold each time.
    private static List<(double Seconds, double Value)> Counted(IEnumerable<(double From, double To)> spans)
    {
        List<(double Seconds, double Value)> points = [(0, 0)];
        int count = 0;
        foreach (IGrouping<double, (double At, int Change)> time in spans.SelectMany(s => new[] { (At: s.From, Change: 1), (At: s.To, Change: -1) }).GroupBy(e => e.At).OrderBy(g => g.Key))
        {
            points.Add((time.Key, count));
            count += time.Sum(e => e.Change);
            points.Add((time.Key, count));
        }

        return points;
    }

    private static void Chart(Svg svg, double top, double end, (string Name, IEnumerable<(double Seconds, double Value)> Points)[] series)
    {
        double step = Axis.Step(series.SelectMany(s => s.Points).Select(p => p.Value).DefaultIfEmpty().Max());
        for (int line = 0; line <= 5; line++)
        {
            YTick(svg, top, line, Text("#,0.##", step * line));
        }

        double seconds = Axis.Step(end);
        for (int tick = 0; tick * seconds <= end; tick++)
        {
            svg.Text(Left + (Width * tick * seconds / end), top + Height + 18, Text("#,0.######", tick * seconds), anchor: "middle");
        }

        for (int i = 0; i < series.Length; i++)
        {
            svg.Curve(series[i].Points.Select(p => (Left + (Width * Math.Min(p.Seconds, end) / end), top + Height - (Height * p.Value / (5 * step)))), Axis.Colour(i), series[i].Name);
        }
    }

    private static void Frame(Svg svg, double top, string title, string[] names)
    {
        svg.Text(Left, top - 14, title);
        for (int i = 0; i < names.Length; i++)
        {
            double x = Left + Width - (110 * (names.Length - i));
            svg.Rectangle(x, top - 24, 12, 12, "key", Axis.Colour(i));
            svg.Text(x + 18, top - 14, names[i]);
        }
    }

    private static void YTick(Svg svg, double top, int line, string text)
    {
        double y = top + Height - (Height * line / 5);
        svg.Line(Left, y, Left + Width, y, line == 0 ? "axis" : "grid");
        svg.Text(Left - 8, y + 4, text, anchor: "end");
    }

    private static string Text(string format, double value) => value.ToString(format, CultureInfo.InvariantCulture);
}
