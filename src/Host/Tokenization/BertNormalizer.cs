using System.Globalization;
using System.Text;

namespace Sluice.Tokenization;

/// <summary>BERT's normalizer: control characters go, white space becomes blanks, Chinese characters get blanks around them, accents and case go where asked.</summary>
internal sealed class BertNormalizer(bool cleanText, bool handleChinese, bool stripAccents, bool lowercase) : TextNormalizer
{
    public override bool Apply(ReadOnlySpan<byte> text, ByteBuffer output)
    {
        ByteBuffer first = new();
        ByteBuffer second = new();
        for (int at = 0; at < text.Length;)
        {
            int c = CharClass.CodePointAt(text, at, out int length);
            at += length;
            if (cleanText)
            {
                if (c is 0 or 0xFFFD || IsControl(c))
                {
                    continue;
                }

                c = c is '\t' or '\n' or '\r' || Rune.IsWhiteSpace(new Rune(c)) ? ' ' : c;
            }

            bool chinese = handleChinese && IsChinese(c);
            if (chinese)
            {
                first.Add((byte)' ');
            }

            first.AddCodePoint(c);
            if (chinese)
            {
                first.Add((byte)' ');
            }
        }

        if (stripAccents)
        {
            ReadOnlySpan<byte> decomposed = Normalization.TryNormalize(UnicodeForm.Nfd, first.Span, second) ? second.Span : first.Span;
            ByteBuffer kept = new();
            for (int at = 0; at < decomposed.Length;)
            {
                int c = CharClass.CodePointAt(decomposed, at, out int length);
                if (c < 128 || CharUnicodeInfo.GetUnicodeCategory(c) != UnicodeCategory.NonSpacingMark)
                {
                    kept.Add(decomposed.Slice(at, length));
                }

                at += length;
            }

            first = kept;
        }

        if (!lowercase || !MapNormalizer.Lowercase.Apply(first.Span, output))
        {
            output.Add(first.Span);
        }

        return true;
    }

    private static bool IsControl(int c) => c is not ('\t' or '\n' or '\r') && CharUnicodeInfo.GetUnicodeCategory(c) is
        UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.Surrogate or UnicodeCategory.PrivateUse;

    // The blocks as the reference has them, U+2B920 for U+2B820 too.
    private static bool IsChinese(int c) => c is (>= 0x4E00 and <= 0x9FFF) or (>= 0x3400 and <= 0x4DBF) or (>= 0x20000 and <= 0x2A6DF) or (>= 0x2A700 and <= 0x2B73F)
        or (>= 0x2B740 and <= 0x2B81F) or (>= 0x2B920 and <= 0x2CEAF) or (>= 0xF900 and <= 0xFAFF) or (>= 0x2F800 and <= 0x2FA1F);
}
