using System.Text;
using Sluice.Tokenization;

namespace Sluice.Loading;

/// <summary>
/// A byte-level BPE vocabulary of a wanted size: 256 bytes, then common English words and pairs of letters with the merges that make them, then made-up
/// words without merges, then the family's special tokens at their true ids. Any text can be encoded, and every id prints as something.
/// </summary>
internal sealed class RandomVocabulary
{
    private const string Words =
        "the of and to in is you that it he was for on are as with his they at be this have from or one had by word but not what all were we when your can said "
        + "there use an each which she do how their if will up other about out many then them these so some her would make like him into time has look two more write "
        + "go see number no way could people my than first water been call who oil its now find long down day did get come made may part over new sound take only "
        + "little work know place year live me back give most very after thing our just name good sentence man think say great where help through much before line "
        + "right too mean old any same tell boy follow came want show also around form three small set put end does another well large must big even such because "
        + "turn here why ask went men read need land different home us move try kind hand picture again change off play spell air away animal house point page letter";

    private const string Pairs =
        "th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le ve co me de hi ri ro ic ne ea ra ce li ch ll be ma si om ur";

    private readonly HashSet<string> _known = new(StringComparer.Ordinal);
    private readonly int _normal;

    private RandomVocabulary(int normal) => _normal = normal;

    public List<string> Tokens { get; } = [];

    public List<int> Kinds { get; } = [];

    public List<string> Merges { get; } = [];

    public string PreTokenizer { get; private init; } = "gpt-2";

    public int Bos { get; private init; }

    public int Eos { get; private init; }

    public int? Eot { get; private init; }

    public bool AddsBos { get; private init; }

    public static RandomVocabulary Create(RandomModelShape shape)
    {
        RandomVocabulary vocabulary;
        string[] special;
        if (shape.Vocabulary == 128_256)
        {
            special = [.. Llama3Special()];
            vocabulary = new(128_000) { PreTokenizer = "llama-bpe", Bos = 128_000, Eos = 128_001, Eot = 128_009, AddsBos = true };
        }
        else
        {
            int normal = shape.Vocabulary == 151_936 ? 151_643 : shape.Vocabulary - 3;
            special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
            vocabulary = new(normal) { PreTokenizer = shape.Vocabulary == 151_936 ? "qwen2" : "gpt-2", Bos = normal, Eos = normal + 2 };
        }

        vocabulary.Fill(special, shape.Vocabulary);
        return vocabulary;
    }

    private static IEnumerable<string> Llama3Special()
    {
        string[] named =
        [
            "<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>", "<|finetune_right_pad_id|>",
            "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>",
        ];
        return named.Concat(Enumerable.Range(3, 256 - named.Length).Select(i => $"<|reserved_special_token_{i}|>"));
    }

    private void Fill(string[] special, int size)
    {
        for (int b = 0; b < 256; b++)
        {
            Add(ByteAlphabet.CharacterOf((byte)b).ToString(), TokenKind.Normal);
        }

        string space = ByteAlphabet.CharacterOf((byte)' ').ToString();
        foreach (string word in Words.Split(' '))
        {
            Chain(space + word);
        }

        foreach (string pair in Pairs.Split(' '))
        {
            Chain(pair);
        }

        for (int i = 0; Tokens.Count < _normal; i++)
        {
            Add(space + MadeUp(i), TokenKind.Normal);
        }

        foreach (string text in special)
        {
            Add(text, TokenKind.Control);
        }

        while (Tokens.Count < size)
        {
            Add($"[PAD{Tokens.Count}]", TokenKind.Unused);
        }
    }

    // Makes a word by merges from the left, each prefix a token.
    private void Chain(string word)
    {
        for (int length = 2; length <= word.Length && Tokens.Count < _normal; length++)
        {
            if (!_known.Contains(word[..length]))
            {
                Merges.Add($"{word[..(length - 1)]} {word[length - 1]}");
                Add(word[..length], TokenKind.Normal);
            }
        }
    }

    // Three or four syllables that spell the number.
    private static string MadeUp(int number)
    {
        const string Consonants = "bdfgklmnprstvz";
        const string Vowels = "aeiou";
        StringBuilder text = new();
        for (int rest = number + (70 * 70); rest > 0; rest /= 70)
        {
            text.Append(Consonants[rest % 70 / 5]).Append(Vowels[rest % 5]);
        }

        return text.ToString();
    }

    private void Add(string text, TokenKind kind)
    {
        if (_known.Add(text))
        {
            Tokens.Add(text);
            Kinds.Add((int)kind);
        }
    }
}
