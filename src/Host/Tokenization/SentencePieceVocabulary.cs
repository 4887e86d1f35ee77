using System.Globalization;
using Sluice.Loading;

namespace Sluice.Tokenization;

/// <summary>What an encoder needs of a SentencePiece vocabulary.</summary>
internal sealed class SentencePieceVocabulary
{
    private readonly ByteStringIndex _index;
    private readonly TokenKind[] _kinds;
    private readonly float[] _scores;
    private readonly int[] _byteTokens = new int[256];

    public SentencePieceVocabulary(TokenizerData data)
    {
        (_index, _kinds) = (data.Index, data.Kinds);
        _scores = data.Scores ?? throw new ModelFormatException(data.File, "tokenizer.ggml.scores", "is missing");
        Array.Fill(_byteTokens, data.UnknownId ?? -1);
        for (int id = 0; id < data.Count; id++)
        {
            if (data.Kinds[id] == TokenKind.Byte)
            {
                _byteTokens[ByteOf(data, id)] = id;
            }
        }

        int bare = Array.IndexOf(_byteTokens, -1);
        if (bare >= 0)
        {
            throw new ModelFormatException(data.File, "tokenizer.ggml.tokens", $"byte {bare} has no token, and there is no unknown token to stand for it");
        }

        WordsAreApart = true;
        for (int id = 0; id < data.Count && WordsAreApart; id++)
        {
            ReadOnlySpan<byte> text = data.Texts[id];
            WordsAreApart = SentencePieceTokenizer.EndOfWord(text) == text.Length;
        }
    }

    /// <summary>True where no token holds a space after another character: then no merge goes over the end of a word, and words can be encoded one by one.</summary>
    public bool WordsAreApart { get; }

    /// <summary>The byte that a token of kind Byte stands for.</summary>
    /// <exception cref="ModelFormatException">Its text is not of the form &lt;0x0A&gt;.</exception>
    public static byte ByteOf(TokenizerData data, int id)
    {
        ReadOnlySpan<byte> text = data.Texts[id];
        return text.Length == 6 && text.StartsWith("<0x"u8) && text[5] == '>'
            && byte.TryParse(text.Slice(3, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out byte value)
            ? value
            : throw new ModelFormatException(data.File, "tokenizer.ggml.tokens", $"byte token {id:N0} is {TokenizerData.Show(text)}, and a form like <0x0A> is expected");
    }

    /// <summary>The piece of a text, or -1. Names of control tokens are no pieces: what is typed, however it merges, never becomes one.</summary>
    public int Find(ReadOnlySpan<byte> text)
    {
        int id = _index.Find(text);
        return id >= 0 && _kinds[id] is TokenKind.Control or TokenKind.Unknown or TokenKind.Byte ? -1 : id;
    }

    public float ScoreOf(int id) => _scores[id];

    public int ByteToken(byte value) => _byteTokens[value];
}
