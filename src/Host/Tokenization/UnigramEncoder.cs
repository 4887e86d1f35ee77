namespace Sluice.Tokenization;

/// <summary>What Unigram needs of a vocabulary.</summary>
/// <param name="Trie">The pieces.</param>
/// <param name="Index">The pieces again, whole.</param>
/// <param name="Scores">Their log-probabilities.</param>
/// <param name="UnknownScore">What a character costs that no piece covers.</param>
/// <param name="Unknown">The token for such a character, or -1.</param>
/// <param name="ByteTokens">The token of each byte where unknown characters are spelt in bytes, or null.</param>
internal sealed record UnigramVocabulary(PrefixTrie Trie, ByteStringIndex Index, double[] Scores, double UnknownScore, int Unknown, int[]? ByteTokens);

/// <summary>
/// Unigram (Kudo, 2018): the pieces that cover a text with the highest sum of log-probabilities, by Viterbi's algorithm. Characters
/// that no piece covers are one unknown token a run, or their bytes.
/// </summary>
internal sealed class UnigramEncoder(UnigramVocabulary vocabulary) : WordEncoder
{
    private const int Kept = 1 << 16;

    private double[] _best = [];
    private int[] _from = []; // -1 where no path ends
    private int[] _token = [];

    protected override void EncodeNew(ReadOnlySpan<byte> word, List<int> ids)
    {
        if (_best.Length <= word.Length)
        {
            int size = Math.Max(256, word.Length + 1);
            (_best, _from, _token) = (new double[size], new int[size], new int[size]);
        }

        _from.AsSpan(0, word.Length + 1).Fill(-1);
        _best[0] = 0;
        for (int at = 0; at < word.Length;)
        {
            CharClass.CodePointAt(word, at, out int character);
            double here = _best[at];
            bool covered = false;
            int node = -1;
            for (int end = at; end < word.Length;)
            {
                node = vocabulary.Trie.Step(node, word[end++]);
                if (node < 0)
                {
                    break;
                }

                int id = vocabulary.Trie.ValueAt(node);
                if (id >= 0)
                {
                    Offer(end, at, id, here + vocabulary.Scores[id]);
                    covered |= end - at == character;
                }
            }

            if (!covered)
            {
                Offer(at + character, at, -1, here + vocabulary.UnknownScore);
            }

            at += character;
        }

        Collect(word, ids);
        if (_best.Length > Kept)
        {
            (_best, _from, _token) = ([], [], []);
        }
    }

    private void Offer(int end, int start, int id, double score)
    {
        if (_from[end] < 0 || score > _best[end])
        {
            (_best[end], _from[end], _token[end]) = (score, start, id);
        }
    }

    // Turns the links round, so that they lead from the start to the end.
    private void Collect(ReadOnlySpan<byte> word, List<int> ids)
    {
        int next = -1;
        for (int end = word.Length; end >= 0;)
        {
            int start = end == 0 ? -1 : _from[end];
            _from[end] = next;
            next = end;
            end = start;
        }

        for (int start = 0; start < word.Length;)
        {
            int end = _from[start];
            if (_token[end] >= 0 && _token[end] != vocabulary.Unknown)
            {
                ids.Add(_token[end]);
            }
            else
            {
                // A run of unknown characters is one.
                while (end < word.Length && (_token[_from[end]] < 0 || _token[_from[end]] == vocabulary.Unknown))
                {
                    end = _from[end];
                }

                AddUnknown(word[start..end], ids);
            }

            start = end;
        }
    }

    private void AddUnknown(ReadOnlySpan<byte> text, List<int> ids)
    {
        int id = vocabulary.Index.Find(text);
        if (id >= 0)
        {
            ids.Add(id);
            return;
        }

        if (vocabulary.ByteTokens is { } bytes)
        {
            foreach (byte value in text)
            {
                ids.Add(bytes[value]);
            }
        }
        else if (vocabulary.Unknown >= 0)
        {
            ids.Add(vocabulary.Unknown);
        }
    }
}
