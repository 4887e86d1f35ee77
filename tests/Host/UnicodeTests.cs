using System.Diagnostics;
using System.Text;
using Sluice.Tokenization;

namespace Sluice.Tests.Host;

public class UnicodeTests
{
    // Of Unicode's NormalizationTest.txt (15.0.0): source; NFC; NFD; NFKC; NFKD.
    private static readonly string[] Selection =
    [
        "1E0A;1E0A;0044 0307;1E0A;0044 0307",
        "0344;0308 0301;0308 0301;0308 0301;0308 0301",
        "0958;0915 093C;0915 093C;0915 093C;0915 093C",
        "0CCB;0CCB;0CC6 0CC2 0CD5;0CCB;0CC6 0CC2 0CD5",
        "1E0A;1E0A;0044 0307;1E0A;0044 0307",
        "2126;03A9;03A9;03A9;03A9",
        "212B;00C5;0041 030A;00C5;0041 030A",
        "2460;2460;2460;0031;0031",
        "3131;3131;3131;1100;1100",
        "AC00;AC00;1100 1161;AC00;1100 1161",
        "FB01;FB01;FB01;0066 0069;0066 0069",
        "FDFA;FDFA;FDFA;0635 0644 0649 0020 0627 0644 0644 0647 0020 0639 0644 064A 0647 0020 0648 0633 0644 0645;0635 0644 0649 0020 0627 0644 0644 0647 0020 0639 0644 064A 0647 0020 0648 0633 0644 0645",
        "FF76;FF76;FF76;30AB;30AB",
        "1D15F;1D158 1D165;1D158 1D165;1D158 1D165;1D158 1D165",
        "2F800;4E3D;4E3D;4E3D;4E3D",
        "0061 0315 0300 05AE 0300 0062;00E0 05AE 0300 0315 0062;0061 05AE 0300 0300 0315 0062;00E0 05AE 0300 0315 0062;0061 05AE 0300 0300 0315 0062",
        "B3F1;B3F1;1103 116A 11B8;B3F1;1103 116A 11B8",
        "32DF;32DF;32DF;30BF;30BF",
        "C365;C365;110A 1164 11C0;C365;110A 1164 11C0",
        "B1D6;B1D6;1102 116C 11B1;B1D6;1102 116C 11B1",
        "1EE11;1EE11;1EE11;0635;0635",
        "FE80;FE80;FE80;0621;0621",
        "1D552;1D552;1D552;0061;0061",
        "D356;D356;1111 1163 11B9;D356;1111 1163 11B9",
        "BD9E;BD9E;1107 116F 11A9;BD9E;1107 116F 11A9",
        "AEC2;AEC2;1101 1165 11AD;AEC2;1101 1165 11AD",
        "1D754;1D754;1D754;03C1;03C1",
        "1F4D;1F4D;039F 0314 0301;1F4D;039F 0314 0301",
        "D4A4;D4A4;1111 116F 11B7;D4A4;1111 116F 11B7",
        "FBEB;FBEB;FBEB;0626 0627;064A 0654 0627",
        "00EA;00EA;0065 0302;00EA;0065 0302",
        "FD9D;FD9D;FD9D;064A 0645 0645;064A 0645 0645",
        "C4D6;C4D6;110A 1172 11A9;C4D6;110A 1172 11A9",
        "C007;C007;1108 1170 11AA;C007;1108 1170 11AA",
    ];

    [Fact]
    public void Forms_agree_with_cases_of_the_standard() => Assert.All(Selection, Check);

    [Fact]
    public void Forms_agree_with_every_case_of_the_standard()
    {
        const string Path = "/usr/share/unicode/NormalizationTest.txt";
        Assert.SkipUnless(File.Exists(Path) || File.Exists(Path + ".bz2"), "the package unicode-data is not there");
        int count = 0;
        foreach (string line in ReadLines(Path).Where(line => line.Length > 0 && line[0] is not ('#' or '@')))
        {
            Check(line);
            count++;
        }

        Assert.InRange(count, 19_000, 30_000);
    }

    [Fact]
    public void Text_that_is_in_its_form_is_left_alone()
    {
        ByteBuffer output = new();
        foreach (string text in new[] { "", "plain", "na\u00EFve \uAC01 \u65E5\u672C", "x\u0316" })
        {
            Assert.False(Normalization.TryNormalize(UnicodeForm.Nfc, Encoding.UTF8.GetBytes(text), output));
        }

        Assert.Equal(0, output.Length);
    }

    [Fact]
    public void A_million_marks_are_ordered_in_no_time()
    {
        string text = "a" + string.Concat(Enumerable.Repeat("\u0301\u0316", 250_000));
        ByteBuffer output = new();
        Stopwatch time = Stopwatch.StartNew();
        Assert.True(Normalization.TryNormalize(UnicodeForm.Nfd, Encoding.UTF8.GetBytes(text), output));
        Assert.True(time.Elapsed < TimeSpan.FromSeconds(20), $"took {time.Elapsed}");
        string ordered = Encoding.UTF8.GetString(output.Span);
        Assert.Equal("a\u0316\u0316", ordered[..3]);
        Assert.Equal('\u0301', ordered[^1]);
        Assert.Equal(text.Length, ordered.Length);
    }

    [Theory, InlineData("\u0130", "i\u0307"), InlineData("\u1E9E\u03A3\u01C5", "\u00DF\u03C3\u01C6"), InlineData("A\U00010400\u2126", "a\U00010428\u03C9")]
    public void Lower_case_is_of_single_characters(string text, string lower)
    {
        Assert.Equal(lower, Encoding.UTF8.GetString(MapNormalizer.Lowercase.Apply(Encoding.UTF8.GetBytes(text))));
    }

    [Theory, InlineData(0x4E00, "Han"), InlineData('a', "Latin"), InlineData(0x3042, "Hiragana"), InlineData(0xAC00, "Hangul"), InlineData(' ', "Common"), InlineData(0x301, "Inherited")]
    public void A_code_point_has_its_script(int codePoint, string script) => Assert.Equal(UnicodeScripts.Find(script), UnicodeScripts.Of(codePoint));

    private static void Check(string line)
    {
        string[] columns = [.. line.Split(';').Take(5).Select(Text)];
        for (int i = 0; i < 5; i++)
        {
            Assert.Equal(columns[i < 3 ? 1 : 3], Form(UnicodeForm.Nfc, columns[i]));
            Assert.Equal(columns[i < 3 ? 2 : 4], Form(UnicodeForm.Nfd, columns[i]));
            Assert.Equal(columns[3], Form(UnicodeForm.Nfkc, columns[i]));
            Assert.Equal(columns[4], Form(UnicodeForm.Nfkd, columns[i]));
        }
    }

    private static string Form(UnicodeForm form, string text)
    {
        ByteBuffer output = new();
        return Normalization.TryNormalize(form, Encoding.UTF8.GetBytes(text), output) ? Encoding.UTF8.GetString(output.Span) : text;
    }

    private static string Text(string hex) => string.Concat(hex.Split(' ').Select(h => char.ConvertFromUtf32(Convert.ToInt32(h, 16))));

    private static IEnumerable<string> ReadLines(string path)
    {
        if (File.Exists(path))
        {
            return File.ReadLines(path);
        }

        using Process unpack = Process.Start(new ProcessStartInfo("bzip2", ["-dc", path + ".bz2"]) { RedirectStandardOutput = true })!;
        return unpack.StandardOutput.ReadToEnd().Split('\n');
    }
}
