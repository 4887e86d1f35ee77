using System.Numerics;
using System.Runtime.InteropServices;

namespace Sluice.Tokenization;

/// <summary>Merges symbols by score: a linked list and a heap. Holds its own buffers: one thread at a time.</summary>
internal sealed class SentencePieceEncoder(SentencePieceVocabulary vocabulary)
{
    private const int Kept = 1 << 16;
    private const int LongestCached = 32;

    private readonly WordCache _cache = new();
    private byte[] _text = [];
    private Symbol[] _symbols = [];
    private Candidate[] _heap = [];
    private int _heapCount;

    private struct Symbol
    {
        public int Start;
        public int Length; // 0 once it was merged into its left neighbour
        public int Previous;
        public int Next;
    }

    // Order: the higher score, then the more left. Size tells whether the pair is still as it was.
    private readonly record struct Candidate(ulong Key, int Size);

    public void Encode(ReadOnlySpan<byte> text, bool spaceInFront, List<int> ids)
    {
        ReadOnlySpan<byte> marked = Mark(text, spaceInFront);
        if (!vocabulary.WordsAreApart)
        {
            Merge(marked, ids);
        }
        else
        {
            while (!marked.IsEmpty)
            {
                int end = SentencePieceTokenizer.EndOfWord(marked);
                EncodeWord(marked[..end], ids);
                marked = marked[end..];
            }
        }

        if (_text.Length > Kept)
        {
            (_text, _symbols, _heap) = ([], [], []);
        }
    }

    private void EncodeWord(ReadOnlySpan<byte> word, List<int> ids)
    {
        if (word.Length > LongestCached)
        {
            Merge(word, ids);
            return;
        }

        uint hash = ByteStringIndex.Hash(word);
        if (_cache.TryGet(hash, word, out ReadOnlySpan<int> known))
        {
            ids.AddRange(known);
            return;
        }

        int before = ids.Count;
        Merge(word, ids);
        _cache.Add(hash, word, CollectionsMarshal.AsSpan(ids)[before..]);
    }

    private void Merge(ReadOnlySpan<byte> marked, List<int> ids)
    {
        int count = Cut(marked);
        for (int i = 0; i + 1 < count; i++)
        {
            Consider(marked, i);
        }

        while (_heapCount > 0)
        {
            Candidate best = Pop();
            ref Symbol left = ref _symbols[(int)(uint)best.Key];
            if (left.Length == 0 || left.Next < 0 || left.Length + _symbols[left.Next].Length != best.Size)
            {
                continue;
            }

            ref Symbol right = ref _symbols[left.Next];
            left.Length = best.Size;
            left.Next = right.Next;
            right.Length = 0;
            int index = (int)(uint)best.Key;
            if (left.Next >= 0)
            {
                _symbols[left.Next].Previous = index;
                Consider(marked, index);
            }

            if (left.Previous >= 0)
            {
                Consider(marked, left.Previous);
            }
        }

        for (int i = count > 0 ? 0 : -1; i >= 0; i = _symbols[i].Next)
        {
            Emit(marked.Slice(_symbols[i].Start, _symbols[i].Length), ids);
        }
    }

    private ReadOnlySpan<byte> Mark(ReadOnlySpan<byte> text, bool spaceInFront)
    {
        ReadOnlySpan<byte> mark = SentencePieceTokenizer.SpaceMark;
        int spaces = text.Count((byte)' ') + (spaceInFront ? 1 : 0);
        int length = checked(text.Length + (spaces * mark.Length));
        if (_text.Length < length)
        {
            _text = new byte[Math.Max(1024, length)];
        }

        int at = 0;
        if (spaceInFront)
        {
            mark.CopyTo(_text);
            at = mark.Length;
        }

        while (!text.IsEmpty)
        {
            int plain = text.IndexOf((byte)' ');
            plain = plain < 0 ? text.Length : plain;
            text[..plain].CopyTo(_text.AsSpan(at));
            at += plain;
            if (plain == text.Length)
            {
                break;
            }

            mark.CopyTo(_text.AsSpan(at));
            at += mark.Length;
            text = text[(plain + 1)..];
        }

        return _text.AsSpan(0, at);
    }

    private int Cut(ReadOnlySpan<byte> text)
    {
        if (_symbols.Length < text.Length)
        {
            _symbols = new Symbol[Math.Max(1024, text.Length)];
        }

        int count = 0;
        for (int at = 0; at < text.Length; count++)
        {
            CharClass.CodePointAt(text, at, out int length);
            _symbols[count] = new Symbol { Start = at, Length = length, Previous = count - 1, Next = count + 1 };
            at += length;
        }

        if (count > 0)
        {
            _symbols[count - 1].Next = -1;
        }

        _heapCount = 0;
        if (_heap.Length < count)
        {
            _heap = new Candidate[Math.Max(1024, count)];
        }

        return count;
    }

    private void Consider(ReadOnlySpan<byte> text, int left)
    {
        ref Symbol symbol = ref _symbols[left];
        if (symbol.Next < 0)
        {
            return;
        }

        int size = symbol.Length + _symbols[symbol.Next].Length;
        int id = vocabulary.Find(text.Slice(symbol.Start, size));
        if (id >= 0)
        {
            Push(new Candidate(((ulong)~Sortable(vocabulary.ScoreOf(id)) << 32) | (uint)left, size));
        }
    }

    private void Emit(ReadOnlySpan<byte> symbol, List<int> ids)
    {
        int id = vocabulary.Find(symbol);
        if (id >= 0)
        {
            ids.Add(id);
            return;
        }

        foreach (byte b in symbol)
        {
            ids.Add(vocabulary.ByteToken(b));
        }
    }

    // A float's bits, changed so that they compare as the floats do.
    private static uint Sortable(float score)
    {
        uint bits = BitConverter.SingleToUInt32Bits(score + 0f);
        return (bits & 0x8000_0000) != 0 ? ~bits : bits | 0x8000_0000;
    }

    private void Push(Candidate candidate)
    {
        if (_heapCount == _heap.Length)
        {
            Array.Resize(ref _heap, (int)BitOperations.RoundUpToPowerOf2((uint)_heapCount + 1));
        }

        int at = _heapCount++;
        while (at > 0 && _heap[(at - 1) / 2].Key > candidate.Key)
        {
            _heap[at] = _heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }

        _heap[at] = candidate;
    }

    private Candidate Pop()
    {
        Candidate top = _heap[0];
        Candidate last = _heap[--_heapCount];
        int at = 0;
        for (int child = 1; child < _heapCount; child = (2 * at) + 1)
        {
            if (child + 1 < _heapCount && _heap[child + 1].Key < _heap[child].Key)
            {
                child++;
            }

            if (last.Key <= _heap[child].Key)
            {
                break;
            }

            _heap[at] = _heap[child];
            at = child;
        }

        _heap[at] = last;
        return top;
    }
}
